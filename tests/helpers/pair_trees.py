"""Finished pairs as their authors lay them out, small: each picture has its own pixels."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def rgb(name: str, size: tuple[int, int] = (32, 24), depth: int = 8) -> np.ndarray:
    """(H, W, 3) RGB that follows from a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    w, h = size
    small = np.random.default_rng(seed).integers(0, 256, (h // 4, w // 4, 3)).astype(np.uint8)
    big = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
    return big if depth == 8 else big.astype(np.uint16) * 257


def put(path: Path, image: np.ndarray | None = None, flags: tuple[int, ...] = (), **options) -> Path:
    """A picture file; ``image`` is RGB (or grey, or RGBA); by default its pixels follow from its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = rgb(str(path), **options) if image is None else image
    code = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[
        image.ndim if image.ndim == 2 else image.shape[2]
    ]
    ok, data = cv2.imencode(path.suffix, image if code is None else cv2.cvtColor(image, code), flags)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def turned(png: bytes, orientation: int) -> bytes:
    """A PNG file with an EXIF block that says how its pixels are to be turned (1 to 8)."""
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x112, 3, 1, orientation, 0)
    chunk = b"eXIf" + exif
    at = png.index(b"IDAT") - 4
    return png[:at] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[at:]


def gopro(
    root: Path, clips=("train/GOPR0372_07_00", "train/GOPR0374_11_00", "test/GOPR0384_11_00"), n: int = 4
) -> Path:
    for clip in clips:
        for i in range(n):
            for kind in ("blur", "blur_gamma", "sharp"):
                put(root / clip / kind / f"{47 + 7 * i:06d}.png")
    return root


def realblur(root: Path, scenes: int = 3, n: int = 3) -> Path:
    for s in range(1, scenes + 1):
        for i in range(1, n + 1):
            for kind in ("blur", "gt"):
                put(root / f"scene{s:03d}" / kind / f"{kind}_{i}.png")
    return root


def reds(root: Path, clips=("000", "001", "002"), n: int = 3) -> Path:
    for clip in clips:
        for i in range(n):
            for kind in ("train_blur", "train_sharp"):
                put(root / kind / clip / f"{i:08d}.png")
    return root
