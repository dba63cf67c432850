"""Pictures inside shards: lossless bytes, their size before a decoder takes memory for it, and a decoder that trusts nothing."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np

from blursynth.png.chunks import MAX_PIXELS, SIGNATURE, chunks
from blursynth.png.reader import read_rgb
from blursynth.png.writer import write
from blursynth.shards.shard import ShardError


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a PNG, WebP, JPEG or BMP claims; None for anything else or for no pixels.

    For PNG, WebP and BMP the first 40 bytes are enough; a JPEG says its size after its metadata.
    """
    try:
        w, h = _size(data)
    except (struct.error, IndexError, ValueError):
        return None
    return (w, h) if w > 0 and h > 0 else None


def _size(data: bytes) -> tuple[int, int]:
    if data[:8] == SIGNATURE:
        w, h = struct.unpack_from(">II", data, 16)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        w, h = _webp(data)
    elif data[:2] == b"BM":
        w, h = struct.unpack_from("<ii", data, 18)
        h = abs(h)  # negative: stored from the top
    elif data[:2] == b"\xff\xd8":
        w, h = _jpeg(data)
    else:
        return 0, 0
    return w, h


def _webp(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8X":
        struct.unpack_from("<6x", data, 24)  # all there?
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8 ":
        w, h = struct.unpack_from("<HH", data, 26)
        return w & 0x3FFF, h & 0x3FFF
    return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    """From the frame header: the first marker C0 to CF that is not a table of codes (C4, C8, CC)."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            h, w = struct.unpack_from(">HH", data, at + 5)
            return w, h
        at += 2 + length
    return 0, 0


def encode_image(rgb: np.ndarray, ext: str) -> bytes:
    """Lossless bytes of an (H, W, 3) uint8 or uint16 RGB image. ``ext``: "png", or "webp" for 8 bits only."""
    if ext == "png":
        return write(rgb)
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]  # what is above 100
    ok, data = cv2.imencode("." + ext, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), lossless)
    if not ok:
        raise ValueError(f"could not encode a {rgb.shape} {rgb.dtype} image as {ext}")
    return data.tobytes()


def encode_flow(flow: np.ndarray) -> bytes:
    """A .npy file of float16 (H, W, 2)."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(flow, np.float16))
    return file.getvalue()


def encode_mask(mask: np.ndarray) -> bytes:
    """A grey PNG of uint8 (H, W)."""
    return cv2.imencode(".png", mask)[1].tobytes()


def decode_image(data: bytes, what: str = "image") -> np.ndarray:
    """(H, W, 3) RGB, uint8 or uint16 as stored, of a PNG or WebP. Raises ShardError naming ``what``."""
    if (rgb := read_rgb(data)) is not None:
        return rgb
    bgr = _decode(data, what)
    if bgr.ndim != 3 or bgr.shape[2] != 3:
        raise ShardError(f"{what}: not a decodable colour image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)


def to_8_bits(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of uint8 or uint16 ones, rounded."""
    return codes if codes.dtype == np.uint8 else ((codes.astype(np.uint32) + 128) // 257).astype(np.uint8)


def decode_mask(data: bytes, what: str = "mask") -> np.ndarray:
    """(H, W) uint8 of a grey PNG. Raises ShardError naming ``what``."""
    grey = _decode(data, what)
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ShardError(f"{what}: not a grey image of 8 bits")
    return grey


def decode_flow(data: bytes, what: str = "flow") -> np.ndarray:
    """(H, W, 2) float16 px of a .npy file, no larger than MAX_PIXELS. Raises ShardError naming ``what``."""
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of .npy than 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, TypeError, EOFError, LookupError, SyntaxError, MemoryError, RecursionError) as e:
        raise ShardError(f"{what}: not a .npy array ({' '.join(str(e).split())[:80]})") from None
    rest = data[file.tell() :]
    if len(shape) != 3 or shape[2] != 2 or dtype != np.float16 or fortran:
        raise ShardError(f"{what}: not float16 (H, W, 2)")
    if shape[0] * shape[1] > MAX_PIXELS or len(rest) != 4 * shape[0] * shape[1]:
        raise ShardError(f"{what}: its bytes are not those of {shape[1]}x{shape[0]} px")
    return np.frombuffer(rest, np.float16).reshape(shape)


def _decode(data: bytes, what: str) -> np.ndarray:
    if fault := picture_fault(data):
        raise ShardError(f"{what}: not a decodable image ({fault})")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise ShardError(f"{what}: not a decodable image ({e.err})") from None
    if pixels is None:
        raise ShardError(f"{what}: not a decodable image")
    return pixels


def picture_fault(data: bytes) -> str | None:
    """Why these bytes are not a whole PNG or WebP of a sane size, or None.

    Asked before a decoder sees them: libpng prints about a cut file, and both decoders may guess pixels.
    """
    if data[:8] == SIGNATURE:
        kind = "PNG"
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WebP"
    else:
        return "neither PNG nor WebP"
    if (size := image_size(data)) is None:
        return f"{kind} without a size"
    if size[0] * size[1] > MAX_PIXELS:
        return f"{kind} of {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}"
    if kind == "WebP":
        return "truncated WebP" if struct.unpack_from("<I", data, 4)[0] + 8 > len(data) else None
    last = b""
    try:
        for name, _, _ in chunks(data):
            last = name
    except ValueError as e:
        return str(e)
    return None if last == b"IEND" else "truncated PNG"
