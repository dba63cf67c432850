"""Picture files: which of a folder are frames of one take, in what order; each checked to be whole before it is believed."""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from blursynth.camera.hdr import split_at_white
from blursynth.shards.picture import MAX_PIXELS, image_size

FLOAT_SUFFIXES = frozenset({".exr"})
"""Pictures of linear light, in units of white."""
HEAD = 1 << 18  # bytes in which a header and its metadata lie
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}) | FLOAT_SUFFIXES
_NUMBER = re.compile(r"(\d+)")
COMPANIONS = frozenset(
    [
        "alpha",
        "depth",
        "disp",
        "disparity",
        "flow",
        "label",
        "labels",
        "mask",
        "masks",
        "matte",
        "normal",
        "normals",
        "seg",
        "segmentation",
        "thumb",
        "trimap",
    ]
)
"""Words that tell a picture beside a frame (``0001_mask.png`` beside ``0001.png``) from a frame."""


class FrameOrder(NamedTuple):
    frames: list[str]
    breaks: frozenset[
        int
    ]  # positions i: between frames i - 1 and i something is missing, or another take begins
    companions: list[str]  # masks and the like that lie beside frames of the same numbers


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which ``f2.png`` comes before ``f10.png``."""
    return [(0, int(t), t) if t.isdecimal() else (1, 0, t.casefold()) for t in _NUMBER.split(name) if t]


def order_frames(names: Iterable[str]) -> FrameOrder:
    """Order the pictures of a folder, take by take.

    Names of one take differ in their numbers alone. Of several numbers (``0017_240fps.png``) the frame's is the one that
    takes most values. Another pattern, another value of a number that few frames share, a number that repeats, goes back
    or leaves more out than usual is a break. The usual step is the commonest one, so a folder that was thinned evenly
    (every 7th frame) has no breaks. Names without any number are one take in the order of the alphabet.
    """
    takes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda n: (natural_key(n), n)):
        takes[_pattern(name)].append(name)
    companions = _companions(takes)
    frames: list[str] = []
    breaks: set[int] = set()
    for pattern, members in takes.items():
        if pattern in companions:
            continue
        if frames:
            breaks.add(len(frames))
        breaks |= {len(frames) + i for i in _breaks(members)}
        frames += members
    return FrameOrder(frames, frozenset(breaks), [n for p in companions for n in takes[p]])


def _pattern(name: str) -> tuple[str, ...]:
    parts = _NUMBER.split(Path(name).stem)
    return tuple(t.casefold() for t in parts[::2]) if len(parts) > 1 else ()


def _companions(takes: dict[tuple[str, ...], list[str]]) -> set[tuple[str, ...]]:
    """Patterns that are another's with such a word added, for numbers that the other has too."""
    found = set()
    numbers = {p: {tuple(_NUMBER.findall(Path(n).stem)) for n in members} for p, members in takes.items()}
    for pattern in takes:
        words = Counter(w for part in pattern for w in re.findall(r"[^\W\d_]+", part))
        for other in takes:
            more = words - Counter(w for part in other for w in re.findall(r"[^\W\d_]+", part))
            if other != pattern and more and more.keys() <= COMPANIONS and numbers[other] & numbers[pattern]:
                found.add(pattern)
    return found


def _breaks(members: list[str]) -> list[int]:
    """Positions within one pattern's names, in order, at which a take does not go on."""
    rows = [tuple(map(int, _NUMBER.findall(Path(n).stem))) for n in members]
    if len(rows) < 2 or not rows[0]:
        return []
    values = [len(set(column)) for column in zip(*rows, strict=True)]
    frame = values.index(max(values))
    shared = [c for c, n in enumerate(values) if c != frame and 1 < n <= len(rows) / 2]
    same = [all(a[c] == b[c] for c in shared) for a, b in pairwise(rows)]
    steps = [b[frame] - a[frame] for a, b in pairwise(rows)]
    usual = Counter(s for s, one in zip(steps, same) if one and s > 0).most_common(1)
    most = 1.5 * usual[0][0] if usual else 0
    return [i + 1 for i, (s, one) in enumerate(zip(steps, same)) if not one or not 0 < s <= most]


def frame_files(folder: str | Path) -> list[Path]:
    """Pictures right inside a folder that are frames, in their order; hidden files do not count. Raises OSError."""
    return [Path(folder) / n for n in folder_order(folder).frames]


def folder_order(folder: str | Path) -> FrameOrder:
    """Frames, breaks and companions among the pictures right inside a folder. Raises OSError."""
    return _order(str(folder), Path(folder).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _order(folder: str, mtime_ns: int) -> FrameOrder:
    return order_frames(
        p.name for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )


def usual_size(files: Sequence[Path], most: int = 15) -> tuple[int, int] | None:
    """(width, height) that most frames have, by a sample of them; a cover picture among them does not decide."""
    sample = [
        files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    ]
    sizes = Counter(size for f in sample if (size := still_size(f)))
    return sizes.most_common(1)[0][0] if sizes else None


def read_still(path: str | Path) -> np.ndarray | None:
    """A picture as (H, W, 3) uint8 RGB, or None when it cannot be read whole.

    Grey becomes RGB, alpha is dropped (not blended), 16 bits become 8 by rounding x / 257. EXIF orientation is
    ignored: frames of one clip must keep one geometry, and extracted frames carry no such tag.
    """
    img = _decode(path, cv2.IMREAD_UNCHANGED)
    if img is None:
        return None
    img = to_8_bits(img)
    if img.ndim == 2 or img.shape[2] <= 2:
        return np.repeat(img.reshape(*img.shape[:2], -1)[..., :1], 3, axis=2)
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB if img.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


def read_photo(path: str | Path) -> np.ndarray | None:
    """A picture for itself, (H, W, 3) RGB, uint8 or uint16 as the file has it, upright by its EXIF; None when it is not whole.

    Grey becomes RGB, alpha is dropped (not blended), a colour profile is not applied.
    """
    bgr = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
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
        small = cv2.IMREAD_REDUCED_COLOR_8 if head[:2] == b"\xff\xd8" else cv2.IMREAD_COLOR
        img = _decode(path, small)
        if img is None:
            return None
        h, w = img.shape[:2]
        return (w, h) if size is None else size[::-1] if (w > h) != (size[0] > size[1]) and w != h else size
    return size


def to_8_bits(codes: np.ndarray) -> np.ndarray:
    """uint8 codes of uint8 or uint16 ones, rounded."""
    return codes if codes.dtype == np.uint8 else ((codes.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _decode(path: str | Path, flags: int) -> np.ndarray | None:
    """A picture of 8 or 16 bits as OpenCV decodes it (BGR), or None when it is not whole."""
    try:
        data = np.fromfile(path, np.uint8)  # cv2.imread fails on non-ASCII paths on Windows
    except OSError:
        return None
    content = data.tobytes()
    size = image_size(content)
    if not is_whole(content) or (size is not None and size[0] * size[1] > MAX_PIXELS):
        return None
    try:
        img = cv2.imdecode(data, flags)
    except cv2.error:
        return None
    return None if img is None or img.size == 0 or img.dtype not in (np.uint8, np.uint16) else img


def is_float(path: str | Path) -> bool:
    """Whether the picture holds linear light (EXR) and not codes."""
    return Path(path).suffix.lower() in FLOAT_SUFFIXES


def read_light(path: str | Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A picture of linear light as sRGB codes, (H, W, 3) uint8, and its light above white (`hdr.split_at_white`).

    Its values count in units of white and as BT.709, which is what EXR means unless it says otherwise. Values that
    are not finite are black. (None, None) when it cannot be read whole.
    """
    try:
        with av.open(str(path)) as c:
            frame = next(c.decode(video=0))
            planes = None if frame.is_corrupt else frame.reformat(format="gbrpf32le").to_ndarray()
    except (av.error.FFmpegError, OSError, ValueError, StopIteration, IndexError):
        planes = None
    if planes is None:
        return None, None
    light = np.nan_to_num(planes, nan=0.0, posinf=0.0, neginf=0.0)
    return split_at_white(np.ascontiguousarray(light, np.float32))


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
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" in data[-64:]
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data[-4096:]
    if data[:4] == b"RIFF" and len(data) >= 8:
        return len(data) >= struct.unpack_from("<I", data, 4)[0]
    if data[:2] == b"BM" and len(data) >= 6:
        return len(data) >= struct.unpack_from("<I", data, 2)[0]
    return len(data) > 0
