"""A decoded frame as a picture: upright RGB of 8 bits, as FFmpeg gives it."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from blursynth.camera.orientation import Orientation, parse_display_matrix


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How the film's display matrix says that the frame is to be turned and mirrored."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return parse_display_matrix(None if data is None else bytes(data))


def size_of(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) of the upright picture."""
    turned = orientation_of(frame).transposed
    return (frame.height, frame.width) if turned else (frame.width, frame.height)


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a decoded frame, upright.

    libswscale takes the matrix (BT.601, BT.709...) and range from the frame; an untagged stream is BT.601
    limited, as in every tool built on FFmpeg. Its settings are the default ones on purpose: the bytes are then
    those that ffmpeg, OpenCV and decord give for the same file.
    """
    return orientation_of(frame).upright(frame.to_ndarray(format="rgb24"))
