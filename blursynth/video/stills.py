"""Picture files: each is checked to be whole before it is believed."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np

from blursynth.camera.exr import exr_to_bt709, is_whole_exr
from blursynth.camera.hdr import Gamut, Transfer, split_at_white
from blursynth.camera.tiff import for_opencv, unread_kind
from blursynth.png.chunks import MAX_PIXELS, SIGNATURE, chunks, is_plain
from blursynth.png.reader import read_rgb
from blursynth.shards.picture import image_size, to_8_bits
from blursynth.video.picture import GAMUTS, TRANSFERS
from blursynth.video.takes import FLOAT_SUFFIXES

HEAD = 1 << 18  # bytes in which a header and its metadata lie
FP16_MAX = float(np.finfo(np.float16).max)


def spread(files: Sequence[Path], most: int = 15) -> list[Path]:
    """At most so many of the files, from all over the row."""
    return [
        files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    ]


def usual_size(files: Sequence[Path]) -> tuple[int, int] | None:
    """(width, height) that most frames have, by a sample of them; a cover picture among them does not decide."""
    sizes = Counter(size for f in spread(files) if (size := still_size(f)))
    return sizes.most_common(1)[0][0] if sizes else None


def read_still(path: str | Path) -> np.ndarray | None:
    """A picture as (H, W, 3) uint8 RGB, or None when it cannot be read whole; 16 bits become 8 by rounding x / 257."""
    codes = read_codes(path)
    return None if codes is None else to_8_bits(codes)


def read_codes(path: str | Path) -> np.ndarray | None:
    """A picture as (H, W, 3) RGB, uint8 or uint16 as the file has it, or None when it cannot be read whole.

    Grey becomes RGB, alpha is dropped (not blended). EXIF orientation is ignored: frames of one clip must keep one
    geometry, and extracted frames carry no such tag.
    """
    content = _content(path)
    if (rgb := read_rgb(content)) is not None:
        return rgb
    img = _decode(content, cv2.IMREAD_UNCHANGED)
    if img is None:
        return None
    if img.ndim == 2 or img.shape[2] <= 2:
        return np.repeat(img.reshape(*img.shape[:2], -1)[..., :1], 3, axis=2)
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB if img.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


def colour_of(path: str | Path) -> tuple[Transfer, Gamut]:
    """The curve and primaries that a picture's file names: an EXR's, or those of a PNG's cICP chunk (FFmpeg writes it into
    frames of HDR film); else SDR's, and with profiles of ICC too."""
    if is_float(path):
        return "linear", "bt709"
    try:
        with Path(path).open("rb") as f:
            head = f.read(HEAD)
            if head[:8] != SIGNATURE:
                return "srgb", "bt709"
            if b"IDAT" not in head:  # large metadata stand first
                head += f.read()
        for kind, content, _ in chunks(head):
            if kind == b"cICP" and len(content) == 4:
                return TRANSFERS.get(content[1], "srgb"), GAMUTS.get(content[0], "bt709")
            if kind == b"IDAT":
                break
    except (OSError, ValueError):
        pass  # cut off inside the picture's data, which no cICP may follow
    return "srgb", "bt709"


def read_photo(path: str | Path) -> np.ndarray | None:
    """A picture for itself, (H, W, 3) RGB, uint8 or uint16 as the file has it, upright by its EXIF; None when it is not whole.

    Grey becomes RGB, alpha is dropped (not blended), a colour profile is not applied.
    """
    bgr = _decode(_content(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def photo_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) of a picture as `read_photo` gives it, or None; only its header is decoded where that is enough."""
    try:
        with Path(path).open("rb") as f:
            head = f.read(HEAD)
    except OSError:
        return None
    size = image_size(head)
    if size is None or b"Exif" in head or b"eXIf" in head:  # it may lie on its side
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            return None
        small = (
            cv2.IMREAD_REDUCED_COLOR_8 if head[:2] == b"\xff\xd8" else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        )
        img = _decode(_content(path), small)
        if img is None:
            return None
        h, w = img.shape[:2]
        return (w, h) if size is None else size[::-1] if (w > h) != (size[0] > size[1]) and w != h else size
    return size


def is_readable(path: str | Path) -> bool:
    """Whether a picture can be read whole. A plain PNG is believed for its checksums and not decoded."""
    if is_float(path):
        return read_light(path)[0] is not None
    content = _content(path)
    return is_plain(content) or _decode(content, cv2.IMREAD_UNCHANGED) is not None


def unread_tiff(path: str | Path) -> str | None:
    """What kind of TIFF the file is where it is one that is not read, in words."""
    return unread_kind(_content(path))


def _content(path: str | Path) -> bytes:
    """A file's bytes; none where it cannot be read."""
    try:
        return Path(path).read_bytes()  # cv2.imread fails on non-ASCII paths on Windows
    except OSError:
        return b""


def _decode(content: bytes, flags: int) -> np.ndarray | None:
    """A picture of 8 or 16 bits as OpenCV decodes it (BGR), or None when it is not whole."""
    size = image_size(content)
    if not is_whole(content) or (size is not None and size[0] * size[1] > MAX_PIXELS):
        return None
    if (coded := for_opencv(content)) is None:
        return None
    try:
        img = cv2.imdecode(np.frombuffer(coded, np.uint8), flags)
    except cv2.error:
        return None
    return None if img is None or img.size == 0 or img.dtype not in (np.uint8, np.uint16) else img


def is_float(path: str | Path) -> bool:
    """Whether the picture holds linear light (EXR) and not codes."""
    return Path(path).suffix.lower() in FLOAT_SUFFIXES


def read_light(path: str | Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A picture of linear light as sRGB codes, (H, W, 3) uint8, and its light above white (`hdr.split_at_white`).

    Its values count in units of white, and as BT.709 where the file names no other primaries. Grey becomes RGB, alpha is
    dropped (light is stored multiplied by it). Light above 65504, of which half floats make infinite light, counts as
    that; what is no number is black. (None, None) when it cannot be read whole, or holds integers.
    """
    content = _content(path)
    if not is_whole_exr(content):
        return None, None
    try:
        with av.open(BytesIO(content), "r", format="exr_pipe") as c:
            frame = next(c.decode(video=0))
            light = None if frame.is_corrupt else _float_rgb(frame)
    except (av.error.FFmpegError, OSError, ValueError, StopIteration, IndexError):
        light = None
    if light is None:
        return None, None
    light = np.nan_to_num(light, copy=False, nan=0.0, posinf=FP16_MAX, neginf=0.0)
    np.clip(light, -FP16_MAX, FP16_MAX, out=light)  # or the primaries' matrix makes infinities of it
    matrix = exr_to_bt709(content)
    return split_at_white(light if matrix is None else cv2.transform(light, matrix))


def _float_rgb(frame: av.VideoFrame) -> np.ndarray | None:
    """(H, W, 3) float32 of a frame of float16 or float32 planes; None for integers.

    Straight from the planes: libswscale turns all but planar float32 RGB into 16-bit integers, and what is above white is
    gone.
    """
    name = frame.format.name
    kind = "<f2" if name.endswith("f16le") else "<f4" if name.endswith("f32le") else None
    if kind is None or not name.startswith(("gbr", "gray", "ya")):
        return None
    step = 2 if name.startswith("ya") else 1  # grey and alpha take turns in one plane
    planes = [
        np.frombuffer(memoryview(p), kind).reshape(frame.height, -1)[:, : step * frame.width : step]
        for p in frame.planes
    ]
    rgb = (planes[2], planes[0], planes[1]) if name.startswith("gbr") else (planes[0],) * 3
    return np.stack(rgb, axis=-1).astype(np.float32)


def still_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) of a picture, by its header where that says it; None when it cannot be read."""
    try:
        with Path(path).open("rb") as f:
            size = image_size(f.read(1 << 16))
    except OSError:
        return None
    if size is None:
        img = read_light(path)[0] if is_float(path) else read_still(path)
        size = None if img is None else (img.shape[1], img.shape[0])
    return size


def is_whole(data: bytes) -> bool:
    """False for a file that ends early: cv2 would fill the missing rows with grey and say nothing."""
    if data[:8] == SIGNATURE:
        return b"IEND" in data[-64:]
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data[-4096:]
    if data[:4] == b"RIFF" and len(data) >= 8:
        return len(data) >= struct.unpack_from("<I", data, 4)[0]
    if data[:2] == b"BM" and len(data) >= 6:
        return len(data) >= struct.unpack_from("<I", data, 2)[0]
    return len(data) > 0
