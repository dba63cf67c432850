"""Where live frames go: a window, a pipe, or a video file whose frames stand at the times they were captured."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np

from blursynth.common.atomic import part_beside
from deblur_train.media.codec import Encoding, choose_codec
from deblur_train.media.pictures import ImageError
from deblur_train.media.video_in import Colour, Shot, VideoFacts
from deblur_train.media.video_out import CONTAINERS, VideoWriter, holds

TICKS = 1000  # time stamps of a live recording: milliseconds since its first frame


class Sink(Protocol):
    """Takes frames; false: it wants no more."""

    def __call__(self, rgb: np.ndarray, seconds: float) -> bool: ...


@contextmanager
def open_sink(out: str, encoding: Encoding) -> Iterator[Sink]:
    """The sink that ``--out`` names: ``window``, ``-`` (raw RGB to standard output) or a video file, which appears whole at
    the end. Raises ImageError."""
    if out == "window":
        yield from _window()
    elif out == "-":
        yield from _pipe(sys.stdout.buffer)
    else:
        path = Path(out)
        if path.suffix.lower() not in CONTAINERS:
            raise ImageError(
                f"{out}: --live writes {', '.join(CONTAINERS)} files, to a window, or to - (a pipe)"
            )
        codec = av.Codec(choose_codec(encoding.codec)[0], "w")
        if not holds(CONTAINERS[path.suffix.lower()], codec):
            raise ImageError(
                f"{out}: {codec.name} cannot be written into {path.suffix}; give a name in .mkv, or another --video-codec"
            )
        with part_beside(path) as part:
            recording = _Recording(part, path.suffix.lower(), encoding)
            yield recording
            recording.close(path)


def _window() -> Iterator[Sink]:
    title = "deblur-train: q ends"
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise ImageError(
            "--out window: this OpenCV is a headless build and has no windows; install opencv-contrib-python in its "
            "place, or give --out FILE.mp4, or --out - and a player (ffplay -f rawvideo -pixel_format rgb24 ...)"
        ) from None

    def show(rgb: np.ndarray, seconds: float) -> bool:
        bytes_ = rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)
        cv2.imshow(title, cv2.cvtColor(bytes_, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    try:
        yield show
    finally:
        cv2.destroyWindow(title)


def _pipe(stream: Any) -> Iterator[Sink]:
    def show(rgb: np.ndarray, seconds: float) -> bool:
        try:
            stream.write(np.ascontiguousarray(rgb if rgb.dtype == np.uint8 else rgb >> 8, np.uint8).data)
            stream.flush()
        except BrokenPipeError:  # the reader has seen enough; Python must not complain again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return False
        return True

    yield show


class _Recording:
    """A video file of unevenly spaced frames: each stands at the time it was captured."""

    def __init__(self, part: Path, suffix: str, encoding: Encoding) -> None:
        self.part, self.suffix, self.encoding = part, suffix, encoding
        self.writer: VideoWriter | None = None
        self.began, self.last = 0.0, -1

    def __call__(self, rgb: np.ndarray, seconds: float) -> bool:
        if self.writer is None:
            self.began = seconds
            facts = VideoFacts(Fraction(1, TICKS), Fraction(25), Colour(), Fraction(1), 0)
            self.writer = VideoWriter(self.part, self.suffix, facts, rgb, self.encoding)
        self.last = max(round((seconds - self.began) * TICKS), self.last + 1)
        self.writer.write(Shot(rgb, self.last, 0))
        return True

    def close(self, path: Path) -> None:
        if self.writer is None:
            raise ImageError(f"{path}: not written: the source gave no frame")
        self.writer.close()
