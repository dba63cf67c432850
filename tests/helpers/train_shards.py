"""Hand-made schema-1 shards: the consumer's own statement of the contract, made without the producer's code."""

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np


def meta(key: str, **source) -> dict:
    return {
        "schema": 1,
        "key": key,
        "seed": 0,
        "recipe_sha256": "ab" * 32,
        "version": "0",
        "source": {
            "dataset": None,
            "clip": "clip",
            "path": "clip.mp4",
            "sha256": "cd" * 32,
            "fps": 240.0,
            "first": 0,
            "last": 8,
            "target": 4,
        }
        | source,
        "exposure": {
            "window": 9,
            "stride": 9,
            "fps_up": 16,
            "interp": "deepflow",
            "profile": "box",
            "shutter_ms": 33.3,
            "duty": 0.89,
            "readout_ms": 0.0,
            "substeps": {"mean": 6.1, "max": 16},
        },
        "camera": {"crf": "srgb", "highlights": None, "noise": None},
        "flow": {"median_px": 2.1, "p95_px": 9.8, "max_px": 22.0, "fb_error_px": 0.3, "occluded": 0.02},
        "quality": {"score": 0.93, "flags": []},
    }


def encode(rgb: np.ndarray, ext: str = ".png") -> bytes:
    return cv2.imencode(ext, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def scene(seed: int, h: int = 72, w: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """(blurred, sharp): a random texture and its 5-pixel horizontal box blur."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (h // 4 + 1, w // 4 + 1, 3)).astype(np.uint8)
    sharp = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_NEAREST)
    return cv2.blur(sharp, (5, 1)), sharp


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(
    key: str, seed: int, h: int = 72, w: int = 96, ext: str = ".png", linear: bool = False, **source
) -> list[tuple[str, bytes]]:
    blur, sharp = scene(seed, h, w)
    members = [(f"{key}.blur{ext}", encode(blur, ext)), (f"{key}.sharp{ext}", encode(sharp, ext))]
    if linear:
        wide = ((blur / 255.0) ** 2.2 * 65535).astype(np.uint16)
        members.append((f"{key}.linear.png", encode(wide)))
    members.append((f"{key}.json", json.dumps(meta(key, **source)).encode()))
    return members


def make_data(folder: Path, shards: int = 2, samples: int = 3, val: int = 2, **options) -> Path:
    """``shards`` training shards of ``samples`` samples each, and one val shard of ``val`` (0: none)."""
    for s in range(shards):
        members = [m for i in range(samples) for m in sample(f"t{s}-{i}", 10 * s + i, **options)]
        write_tar(folder / f"train-{s:06d}.tar", members)
    if val:
        write_tar(
            folder / "val-000000.tar", [m for i in range(val) for m in sample(f"v-{i}", 100 + i, **options)]
        )
    return folder
