"""Where live frames come from: a camera, a file at its own pace, an address, a pipe. Each gives ``(H, W, 3)`` RGB."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deblur_train.media.pictures import ImageError
from deblur_train.media.video_in import Shot, VideoError, VideoReader


def open_source(
    given: str, size: tuple[int, int] | None = None, standard_input: Any = None
) -> Iterator[np.ndarray]:
    """A camera's number, a file, an address (``rtsp://...``), or ``-``: standard input, raw frames of ``size``
    (width, height) or any stream that FFmpeg knows. Raises ImageError when it cannot be opened."""
    pipe = standard_input if standard_input is not None else sys.stdin.buffer
    if given == "-":
        return raw_frames(pipe, *size) if size else streamed(VideoReader(pipe, copy=False))
    if given.isdigit() and not Path(given).exists():
        return camera(int(given))
    if "://" in given:
        return streamed(VideoReader(given, copy=False))
    if not Path(given).is_file():
        raise ImageError(f"{given}: no such file (a camera is given by its number, standard input by -)")
    return paced(VideoReader(Path(given), copy=False))


def camera(index: int) -> Iterator[np.ndarray]:
    """Frames of a camera, as OpenCV numbers them. Raises ImageError at once when it cannot be opened."""
    device = cv2.VideoCapture(index)
    if not device.isOpened():
        device.release()
        raise ImageError(f"camera {index}: cannot be opened (none there, in use, or not permitted)")
    device.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue would be latency that nobody counts
    return _camera_frames(device)


def _camera_frames(device: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while True:
            there, bgr = device.read()
            if not there:
                return
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    finally:
        device.release()


def paced(
    reader: VideoReader,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[np.ndarray]:
    """Frames of a file, each at its own time, as a camera would have given them; late ones at once."""
    with reader:
        began: float | None = None
        for shot in reader:
            if not isinstance(shot, Shot):
                continue
            due = float(shot.pts * reader.time_base)
            if began is None:
                began = clock() - due
            wait = began + due - clock()
            if wait > 0:
                sleep(wait)
            yield shot.rgb


def streamed(reader: VideoReader) -> Iterator[np.ndarray]:
    """Frames as fast as they arrive."""
    with reader:
        for shot in reader:
            if isinstance(shot, Shot):
                yield shot.rgb


def raw_frames(pipe: Any, width: int, height: int) -> Iterator[np.ndarray]:
    """Packed RGB frames, 3 bytes a pixel, out of a binary stream. Raises VideoError when it ends inside a frame."""
    length = width * height * 3
    while True:
        data = pipe.read(length)
        while data and len(data) < length:  # an unbuffered pipe gives what it has
            more = pipe.read(length - len(data))
            if not more:
                raise VideoError(
                    f"standard input ended inside a frame: {len(data)} of {length} bytes; is --live-size right?"
                )
            data += more
        if not data:
            return
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
