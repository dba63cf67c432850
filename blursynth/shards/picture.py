"""Pictures inside shards: lossless bytes, and a decoder that trusts nothing."""

from __future__ import annotations

import cv2
import numpy as np

from blursynth.shards.image_header import MAX_PIXELS, image_size
from blursynth.shards.shard import ShardError


def encode_image(rgb: np.ndarray, ext: str) -> bytes:
    """Lossless bytes of an (H, W, 3) uint8 or uint16 RGB image. ``ext``: "png", or "webp" for 8 bits only."""
    # PNG: cv2's own defaults; an explicit compression level is slower and no smaller.
    flags = [cv2.IMWRITE_WEBP_QUALITY, 101] if ext == "webp" else []  # above 100 means lossless
    ok, data = cv2.imencode("." + ext, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    if not ok:
        raise ValueError(f"could not encode a {rgb.shape} {rgb.dtype} image as {ext}")
    return data.tobytes()


def decode_image(data: bytes, what: str = "image") -> np.ndarray:
    """(H, W, 3) RGB, uint8 or uint16 as stored, of a PNG or WebP. Raises ShardError naming ``what``."""
    size = image_size(data)
    if size is None or data[:2] in (b"BM", b"\xff\xd8"):
        raise ShardError(f"{what}: not a decodable PNG or WebP image")
    if size[0] * size[1] > MAX_PIXELS:
        raise ShardError(f"{what}: claims {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise ShardError(f"{what}: not a decodable image ({e.err})") from None
    if bgr is None or bgr.ndim != 3 or bgr.shape[2] != 3:
        raise ShardError(f"{what}: not a decodable colour image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
