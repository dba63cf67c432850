"""EXR files for tests: uncompressed ones written by hand, with any channels and attributes, and FFmpeg's."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np


def exr(
    channels: dict[str, np.ndarray],
    attributes: tuple[tuple[str, str, bytes], ...] = (),
    display_from: int = 0,
) -> bytes:
    """A file of (H, W) float16 or float32 channels, one row a chunk; its display window begins at ``display_from``."""
    h, w = next(iter(channels.values())).shape
    names = sorted(channels)
    kinds = {"f2": 1, "f4": 2}
    listed = b"".join(
        n.encode() + b"\0" + struct.pack("<iB3xii", kinds[channels[n].dtype.str[1:]], 0, 1, 1) for n in names
    )
    box = struct.pack("<4i", display_from, display_from, display_from + w - 1, display_from + h - 1)
    usual = (
        ("channels", "chlist", listed + b"\0"),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", box),
        ("displayWindow", "box2i", box),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    )
    head = b"\x76\x2f\x31\x01" + struct.pack("<i", 2)
    for name, kind, value in (*usual, *attributes):
        head += f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
    head += b"\0"
    rows = [b"".join(channels[n][y].tobytes() for n in names) for y in range(h)]
    start = len(head) + 8 * h
    table = struct.pack(f"<{h}Q", *(start + i * (8 + len(rows[0])) for i in range(h)))
    return (
        head + table + b"".join(struct.pack("<ii", display_from + y, len(r)) + r for y, r in enumerate(rows))
    )


def encode_exr(
    light: np.ndarray, pix_fmt: str = "gbrpf32le", depth: str = "half", compression: str = "zip16"
) -> bytes:
    """FFmpeg's file of float32 light, (H, W), (H, W, 3) or (H, W, 4) as ``pix_fmt`` has it."""
    c = av.CodecContext.create("exr", "w")
    c.height, c.width = light.shape[:2]
    c.pix_fmt, c.time_base, c.options = (
        pix_fmt,
        Fraction(1, 25),
        {"format": depth, "compression": compression},
    )
    packets = [*c.encode(av.VideoFrame.from_ndarray(light, format=pix_fmt)), *c.encode(None)]
    return b"".join(bytes(p) for p in packets)
