"""File formats by extension: films that are read, and what is named instead because it is not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

VIDEOS = frozenset(
    [
        ".264",
        ".265",
        ".3gp",
        ".apng",
        ".asf",
        ".avi",
        ".flv",
        ".gif",
        ".h264",
        ".h265",
        ".hevc",
        ".insv",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mjpeg",
        ".mjpg",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mpv",
        ".mts",
        ".mxf",
        ".ogv",
        ".qt",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)
UNREAD_FILMS = frozenset(
    [
        ".360",
        ".3g2",
        ".3gpp",
        ".amv",
        ".av1",
        ".divx",
        ".dv",
        ".f4v",
        ".gifv",
        ".ivf",
        ".m1v",
        ".m2p",
        ".m2t",
        ".mj2",
        ".mod",
        ".mp2",
        ".mpe",
        ".mxv",
        ".nut",
        ".obu",
        ".ogm",
        ".rm",
        ".rmvb",
        ".tod",
        ".trp",
        ".wtv",
    ]
)
"""In a container that is not read, or not known to be read right."""
RAW_FILMS = frozenset([".ari", ".braw", ".cine", ".crm", ".mlv", ".r3d", ".yuv", ".zraw"])
"""Of a sensor, or with nothing that says what they hold: a program that knows them has to develop them."""
UNREAD_PICTURES = frozenset(
    [
        ".arw",
        ".avif",
        ".cr2",
        ".cr3",
        ".dng",
        ".dpx",
        ".hdr",
        ".heic",
        ".heif",
        ".j2k",
        ".jp2",
        ".jxl",
        ".nef",
        ".orf",
        ".pgm",
        ".ppm",
        ".raf",
        ".rw2",
        ".tga",
    ]
)
PROXIES = frozenset({".lrv", ".lrf"})
"""Small copies that a camera writes beside each recording."""


def unread(folder: Path, names: list[str], beside: set[str]) -> Iterator[tuple[str, str, str]]:
    """(path, reason, detail) of films and pictures among ``names`` that are not used, each or each kind by name."""
    kinds: Counter[str] = Counter()
    for n in names:
        path, ext = folder / n, Path(n).suffix.lower()
        if ext in PROXIES:
            yield small_copy(path, beside) or (
                str(path),
                "proxy",
                f"{path}: is a camera's small copy; give the recording itself",
            )
        elif ext in UNREAD_FILMS:
            detail = f"{ext} files are not read; 'ffmpeg -i {n} -c copy {path.stem}.mkv' puts the film into one that is"
            yield (str(path), "unsupported", f"{path}: {detail}")
        elif ext in RAW_FILMS:
            detail = f"{ext} films are not read; develop it to ProRes, or to 16-bit PNG or EXR frames"
            yield (str(path), "unsupported", f"{path}: {detail}")
        elif ext in UNREAD_PICTURES:
            kinds[ext] += 1
    for ext, count in sorted(kinds.items()):
        yield (
            str(folder),
            "unsupported",
            f"{folder}: {count} {ext} pictures are not read; convert them to 8-bit or 16-bit PNG",
        )


def small_copy(path: Path, beside: set[str]) -> tuple[str, str, str] | None:
    """(path, reason, detail) of a camera's small copy of a recording that lies beside it; None for all else."""
    if path.suffix.lower() not in PROXIES:
        return None
    for name in sorted(beside - {path.name}):
        if Path(name).suffix.lower() in VIDEOS and _recording(name) == _recording(path.name):
            return str(path), "proxy", f"{path}: is the camera's small copy of {name}, which is used"
    return None


def _recording(name: str) -> str:
    """GoPro's GL010001.LRV and DJI's DJI_0001.LRF belong to GX010001.MP4 and DJI_0001.MP4."""
    return re.sub(r"^g[lxhs](?=\d{6})", "g", Path(name).stem.lower())
