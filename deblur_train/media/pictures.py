"""Image files: any common kind in, RGB out, and back again without losing orientation, depth, alpha or colour profile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blursynth.camera.tiff import for_opencv, unread_kind
from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UserError
from blursynth.shards.picture import image_size
from deblur_train.media.metadata import embed, profile_fits, read_metadata
from deblur_train.media.tiff import TIFF, for_upright

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp")
CONVERT = {".heic": "HEIC", ".heif": "HEIF", ".gif": "GIF (256 colours)", ".jxl": "JPEG XL"}
"""Pictures that are known and not read: how to go on is said."""
THUMBNAILS = ("@eaDir", "__MACOSX")
"""Folders that a network drive and a Mac's archives put small copies into."""
EIGHT_BITS = (".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp")
NO_ALPHA = (".jpg", ".jpeg", ".jfif", ".bmp")
MAX_PIXELS = 1 << 29  # the largest picture worth trying; beyond it a header is more likely damaged
# Full chroma resolution: a restored edge is what the user came for.
JPEG_OPTIONS = [
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]
OPTIONS = {
    ".jpg": JPEG_OPTIONS,
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
    ".avif": [cv2.IMWRITE_AVIF_QUALITY, 95],
}


class ImageError(UserError):
    """An image file that cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Picture:
    rgb: np.ndarray  # (H, W, 3) uint8 or uint16, display-encoded, upright
    alpha: np.ndarray | None  # (H, W), the same type
    grey: bool  # the file had one channel
    exif: bytes | None = None  # as read, orientation included, though ``rgb`` is upright
    icc: bytes | None = None  # the profile of the channels as they are here
    note: str = ""  # what of the file is not here, in words
    extras: tuple[bytes, ...] = ()  # what else the file holds, as it stands there
    names: tuple[str, ...] = ()  # of these, and of what cannot be carried along
    container: str = ""  # ".jpg" or ".png": whose extras they are


def is_hidden(below: Path) -> bool:
    """Whether a file, by its place below the folder that was asked for, is hidden or lies in a hidden folder: a half-written
    result, a thumbnail, something in a trash can."""
    return any(part.startswith(".") or part in THUMBNAILS for part in below.parts)


def is_file(path: Path) -> bool:
    """Whether it is a file, or a link that leads nowhere: that one fails by name. A pipe would be waited for forever."""
    return path.is_file() or not path.exists()


def files_below(folder: Path, refused: Callable[[OSError], None]) -> list[Path]:
    """Files in a folder and its subfolders, sorted, but for hidden ones. Links to folders are followed, each folder is
    listed once; a link that leads nowhere is one of the files. ``refused`` is told of folders that cannot be listed."""
    found: list[Path] = []
    listed: set[str] = set()
    roots = [folder]
    for root in roots:  # links come last: what is reached without one keeps its place
        for above, folders, files in os.walk(root, onerror=refused):
            real = os.path.realpath(above)
            if real in listed:
                folders.clear()
                continue
            listed.add(real)
            folders[:] = sorted(d for d in folders if not is_hidden(Path(d)))
            inside = Path(above)
            roots += [inside / d for d in folders if (inside / d).is_symlink()]
            found += [inside / f for f in files if not is_hidden(Path(f)) and is_file(inside / f)]
    return sorted(found)


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
        raise ImageError(f"{path}: {how_to_convert('.gif')}, or to MP4 where it moves")
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heim", b"mif1", b"hevc"):
        raise ImageError(f"{path}: {how_to_convert('.heic')} (heif-convert, or sips -s format png on a Mac)")
    if not data:
        raise ImageError(f"{path}: the file is empty; copy it again")
    size = image_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: {size[0]} x {size[1]} pixels is too large; at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    if (coded := for_opencv(data)) is None:
        raise ImageError(f"{path}: {unread_kind(data)}; save it as RGB of 8 or 16 bits")
    try:
        raw = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise ImageError(f"{path}: cannot be decoded: {e.err if hasattr(e, 'err') else 'bad data'}") from None
    if raw is None:
        raise ImageError(f"{path}: not an image that can be decoded (damaged, or of another kind)")
    if raw.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: {raw.dtype} pixels; convert it to 8 or 16 bits a channel")
    if raw.shape[0] * raw.shape[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: {raw.shape[1]} x {raw.shape[0]} pixels is too large; at most {MAX_PIXELS // 1_000_000} megapixels are read"
        )
    found = read_metadata(data)
    if data[:4] not in TIFF:  # OpenCV turns a TIFF upright itself, whatever it is told
        raw = upright(raw, found.orientation)
    grey = raw.ndim == 2 or raw.shape[2] == 1
    icc = found.icc if found.icc and profile_fits(found.icc, grey) else None
    notes = [
        "CMYK converted to RGB without its profile" if found.cmyk else "",
        "first of several pictures; the others are left out" if found.several else "",
        "colour profile left out: it is not one of these channels"
        if found.icc and not icc and not found.cmyk
        else "",
    ]
    alpha = None
    if grey:
        rgb = np.repeat(raw.reshape(*raw.shape[:2], 1), 3, axis=2)
    elif raw.shape[2] == 4:
        rgb, alpha = cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB), raw[:, :, 3].copy()
    else:
        rgb = cv2.cvtColor(raw, cv2.COLOR_BGR2RGB)
    container = ".jpg" if data[:2] == b"\xff\xd8" else ".png" if data[:4] == b"\x89PNG" else ""
    note = "; ".join(n for n in notes if n)
    return Picture(rgb, alpha, grey, found.exif, icc, note, found.extras, found.names, container)


def write_picture(path: Path, picture: Picture) -> None:
    """Write atomically, in the format of ``path``'s extension, with the picture's channels and depth where it can.

    Its EXIF block and profile go along, the block saying that the picture is upright. Raises ImageError.
    """
    extension = path.suffix.lower()
    coder = coder_of(extension)
    out = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY if picture.grey else cv2.COLOR_RGB2BGR)
    if out.dtype == np.uint16 and extension in EIGHT_BITS:
        out = np.round(out / 257.0).astype(np.uint8)
    if picture.alpha is not None and extension not in NO_ALPHA:
        same = picture.alpha.dtype == out.dtype
        out = np.dstack([out, picture.alpha if same else np.round(picture.alpha / 257.0).astype(np.uint8)])
    try:
        done, data = cv2.imencode(coder, out, OPTIONS.get(coder, []))
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"{path}: cannot be written as {extension}")
    extras = picture.extras if coder == picture.container else ()
    exif = for_upright(picture.exif) if picture.exif else None
    whole = embed(data.tobytes(), exif, picture.icc, extras)
    write_atomic(path, whole)


def lost_in(extension: str, picture: Picture) -> str:
    """What of a picture a format cannot hold, in words; empty: nothing."""
    lost = []
    if picture.alpha is not None and extension in NO_ALPHA:
        lost.append("transparency left out")
    if picture.rgb.dtype == np.uint16 and extension in EIGHT_BITS:
        lost.append("16 bits written as 8")
    said = [f"{', '.join(lost)}: {extension} holds no more"] if lost else []
    if picture.names and coder_of(extension) != picture.container:
        said.append(f"not kept: {', '.join(picture.names)}")
    return "; ".join(said)


def coder_of(extension: str) -> str:
    return {".jpeg": ".jpg", ".jfif": ".jpg"}.get(extension, extension)


def how_to_convert(extension: str) -> str:
    return f"{CONVERT[extension]} is not supported; convert it to PNG"
