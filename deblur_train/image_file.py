"""Image files: any common kind in, RGB out, and back again without losing orientation, depth or transparency."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .checkpoint import write_atomically

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 1 << 29  # the largest picture worth trying; beyond it a header is more likely damaged


class ImageError(ValueError):
    """An image file that cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Picture:
    rgb: np.ndarray  # (H, W, 3) uint8 or uint16, display-encoded, upright
    alpha: np.ndarray | None  # (H, W), the same type
    grey: bool  # the file had one channel


def exif_orientation(data: bytes) -> int:
    """The orientation tag (1-8) of JPEG, PNG, WebP or TIFF bytes; 1 when there is none or it is nonsense."""
    try:
        tiff = _exif_block(data)
        if tiff is None:
            return 1
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for i in range(count):
            tag, kind, n, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * i)
            if tag == 0x0112 and kind == 3 and n == 1:
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError, IndexError):
        return 1
    return 1


def _exif_block(data: bytes) -> bytes | None:
    """The TIFF structure that carries the tags, without decoding the picture."""
    if data[:2] == b"\xff\xd8":
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                return data[at + 10 : at + 2 + length]
            at += 2 + length
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        at = 8
        while at + 12 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            if data[at + 4 : at + 8] == b"eXIf":
                return data[at + 8 : at + 8 + length]
            at += 12 + length
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        at = 12
        while at + 8 <= len(data):
            (length,) = struct.unpack_from("<I", data, at + 4)
            if data[at : at + 4] == b"EXIF":
                block = data[at + 8 : at + 8 + length]
                return block.removeprefix(b"Exif\0\0")
            at += 8 + length + length % 2
    elif data[:4] in (b"II*\0", b"MM\0*"):
        return data
    return None


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1-8): stored pixels to the picture as it is meant to be seen."""
    if orientation in (5, 6, 7, 8):
        image = np.swapaxes(image, 0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def read_picture(path: Path) -> Picture:
    """Read an image file, upright. Raises ImageError in one line."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ImageError(f"{path}: cannot be read: {e.strerror}") from None
    if data[:6] in (b"GIF87a", b"GIF89a"):
        raise ImageError(f"{path}: GIF is not supported; convert its frames to PNG")
    if not data:
        raise ImageError(f"{path}: empty file")
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise ImageError(f"{path}: cannot be decoded: {e.err if hasattr(e, 'err') else 'bad data'}") from None
    if raw is None:
        raise ImageError(f"{path}: not an image that can be decoded (damaged, or of another kind)")
    if raw.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: {raw.dtype} pixels; 8 or 16 bits an integer channel are supported")
    if raw.shape[0] * raw.shape[1] > MAX_PIXELS:
        raise ImageError(f"{path}: {raw.shape[1]} x {raw.shape[0]} pixels is too large")
    raw = upright(raw, exif_orientation(data))
    if raw.ndim == 2 or raw.shape[2] == 1:
        plane = raw.reshape(raw.shape[0], raw.shape[1])
        return Picture(np.repeat(plane[:, :, None], 3, axis=2), None, True)
    if raw.shape[2] == 4:
        return Picture(cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB), raw[:, :, 3].copy(), False)
    return Picture(cv2.cvtColor(raw, cv2.COLOR_BGR2RGB), None, False)


def write_picture(path: Path, picture: Picture) -> None:
    """Write atomically, in the format of ``path``'s extension, with the picture's channels and depth where it can."""
    extension = path.suffix.lower()
    out = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY if picture.grey else cv2.COLOR_RGB2BGR)
    if out.dtype == np.uint16 and extension in (".jpg", ".jpeg", ".webp", ".bmp"):
        out = np.round(out / 257.0).astype(np.uint8)
    if picture.alpha is not None and extension not in (".jpg", ".jpeg", ".bmp"):
        alpha = (
            picture.alpha
            if picture.alpha.dtype == out.dtype
            else np.round(picture.alpha / 257.0).astype(np.uint8)
        )
        out = np.dstack([out, alpha])
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
        ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
    }
    try:
        done, data = cv2.imencode(extension, out, options.get(extension, []))
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"{path}: cannot be written as {extension}")
    write_atomically(path, lambda f: f.write(data.tobytes()))
