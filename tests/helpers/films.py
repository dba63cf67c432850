"""Small films for tests: moving textures, and the files and folders made of them.

A module of its own (not only fixtures), so that worker processes and other tests can import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

# One B-pyramid, open groups of 12 frames: the hardest thing that ordinary files do to random access.
OPEN_GOP = {
    "crf": "20",
    "x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-pyramid=normal:scenecut=0:threads=1",
}


def texture(size: tuple[int, int], seed: int = 0, grain: int = 8) -> np.ndarray:
    """(h, w, 3) uint8 smooth random texture of ``size`` = (w, h)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size[1] // grain + 2, size[0] // grain + 2, 3)).astype(np.uint8)
    big = cv2.resize(small, None, fx=grain, fy=grain, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(big[: size[1], : size[0]])


def moving(
    n: int, size: tuple[int, int] = (256, 144), step: tuple[int, int] = (3, 2), seed: int = 0
) -> list[np.ndarray]:
    """``n`` RGB frames over which a texture moves by ``step`` = (dx, dy) px a frame."""
    w, h = size
    big = texture((w + abs(step[0]) * n, h + abs(step[1]) * n), seed)
    return [np.ascontiguousarray(big[abs(step[1]) * i :, abs(step[0]) * i :][:h, :w]) for i in range(n)]


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: int = 30,
    pts: Sequence[int] | None = None,
    pix_fmt: str = "yuv420p",
    faststart: bool = True,
) -> Path:
    """Encode RGB frames; ``pts`` (in frames) makes a variable rate."""
    movie = path.suffix in (".mp4", ".mov", ".m4v")
    with av.open(str(path), "w", options={"movflags": "faststart"} if movie and faststart else {}) as c:
        s = c.add_stream(codec, rate=fps, options=options if options is not None else dict(OPEN_GOP))
        s.pix_fmt = pix_fmt
        for i, rgb in enumerate(frames):
            if i == 0:
                s.height, s.width = rgb.shape[:2]
            f = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if pts is not None:
                f.pts, f.time_base = pts[i], Fraction(1, fps)
            c.mux(s.encode(f))
        c.mux(s.encode())
    return path


def write_frames(
    folder: Path, frames: Iterable[np.ndarray], name: str = "{:06d}.png", start: int = 0
) -> Path:
    """RGB frames as picture files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, rgb in enumerate(frames, start):
        write_picture(folder / name.format(i), rgb[..., ::-1])
    return folder


def write_picture(path: Path, bgr: np.ndarray) -> Path:
    """Any array cv2 can encode; goes around cv2.imwrite's trouble with non-ASCII paths."""
    ok, data = cv2.imencode(path.suffix, bgr)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def packets(path: Path) -> list[tuple[int, int, int, bool]]:
    """(pos, size, pts, keyframe) of every video packet, in the file's order."""
    with av.open(str(path)) as c:
        return [(p.pos, p.size, p.pts, p.is_keyframe) for p in c.demux(c.streams.video[0]) if p.size]
