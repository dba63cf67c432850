"""The members of a packed pair: its files' own bytes where shards hold such, its pixels as PNG elsewhere; its JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth import __version__
from blursynth.camera.tiff import for_opencv, unread_kind
from blursynth.exchange.scenes import PackPlan
from blursynth.shards.partners import Pair
from blursynth.shards.picture import MAX_PIXELS, decode_image, encode_image, image_size
from blursynth.shards.schema import SCHEMA
from blursynth.shards.shard import ShardError, dump_json

UNKNOWN: dict[str, Any] = {
    "exposure": dict.fromkeys(
        ("window", "stride", "fps_up", "interp", "profile", "shutter_ms", "duty", "readout_ms", "substeps")
    ),
    "camera": dict.fromkeys(("crf", "highlights", "noise")),
    "flow": dict.fromkeys(("median_px", "p95_px", "max_px", "fb_error_px", "occluded")),
    "quality": {"score": None, "flags": []},
}
"""What nobody wrote down when the pair was taken."""


class Unusable(Exception):
    """A pair that cannot be packed, and why."""


def pair_members(pair: Pair, plan: PackPlan) -> tuple[dict[str, bytes], int]:
    """Members of a pair's sample, and how many of its two pictures are copies. Raises Unusable."""
    files = [_read(path) for path in (pair.blur, pair.sharp)]
    if files[0] == files[1]:
        raise Unusable("are the same bytes")
    coded = [_as_stored(data, path) for data, path in zip(files, (pair.blur, pair.sharp))]
    (_, _, a), (_, _, b) = coded
    if a.shape != b.shape:
        raise Unusable(f"are {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]} pixels")
    digests = [hashlib.sha256(f).hexdigest() for f in files]
    rel = [plan.rel(p) for p in (pair.blur, pair.sharp)]
    copied = [data == file for (_, data, _), file in zip(coded, files)]
    key = plan.key(pair)
    # A sharp picture is what a split may not share: its bytes stand for the source.
    source = {
        "dataset": None,
        "clip": pair.scene,
        "path": rel[1],
        "sha256": digests[1],
        "fps": None,
        "first": None,
        "last": None,
        "target": None,
    }
    meta = {
        "schema": SCHEMA,
        "key": key,
        "seed": None,
        "recipe_sha256": plan.recipe_sha256,
        "version": __version__,
        "source": source,
    }
    packed = {
        "scene": pair.scene,
        "name": pair.name,
        "official": pair.split is not None,
        "in_time_order": pair.from_folder,
        "blur": rel[0],
        "blur_sha256": digests[0],
        "sharp": rel[1],
        "copied": all(copied),
    }
    members = {f"{role}.{ext}": data for role, (ext, data, _) in zip(("blur", "sharp"), coded)}
    return members | {"json": dump_json(meta | UNKNOWN | {"packed": packed}, indent=None)}, sum(copied)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise Unusable(f"{path.name} cannot be read ({e.strerror})") from None


def _as_stored(data: bytes, path: Path) -> tuple[str, bytes, np.ndarray]:
    """(extension, bytes, pixels): the file's own bytes where shards hold such, else its pixels, upright, as PNG. Raises
    Unusable."""
    ext = "png" if data[:4] == b"\x89PNG" else "webp" if data[8:12] == b"WEBP" else None
    if ext and (ext == "png" or b"VP8L" in data[12:4096]):
        try:
            stored = decode_image(data)
            if not _is_turned(data, stored):
                return ext, data, stored
        except ShardError as e:
            if "not a decodable colour image" not in str(e):
                raise Unusable(f"{path.name}: {e}") from None
    size = image_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise Unusable(f"{path.name}: claims {size[0]} x {size[1]} pixels")
    rgb = decode_any(data)
    if rgb is None:
        if kind := unread_kind(data):
            raise Unusable(f"{path.name}: is {kind}; convert it to RGB of 8 or 16 bits")
        raise Unusable(f"{path.name}: not a picture that can be decoded whole, or one with transparency")
    return "png", encode_image(rgb, "png"), rgb


def _is_turned(data: bytes, rgb: np.ndarray) -> bool:
    """Whether the metadata of a PNG or WebP turns its pixels: readers of shards take them as they stand."""
    upright = decode_any(data) if b"eXIf" in data or b"EXIF" in data else None
    return upright is not None and not np.array_equal(upright, rgb)


def decode_any(data: bytes) -> np.ndarray | None:
    """(H, W, 3) RGB uint8 or uint16 of any picture OpenCV reads, turned as its EXIF says; grey becomes RGB.

    None for what cannot be decoded, ends early, or is not opaque: there is no right colour behind it.
    """
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]:
        return None
    if (coded := for_opencv(data)) is None:
        return None
    try:
        as_is = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
        bgr = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    if as_is is None or bgr is None or bgr.dtype not in (np.uint8, np.uint16):
        return None
    if (
        as_is.ndim == 3
        and as_is.shape[2] == 4
        and int(as_is[..., 3].min()) != (255 if as_is.dtype == np.uint8 else 65535)
    ):
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
