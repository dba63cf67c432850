"""A clip as it is known before it is decoded, one frame of it, and the error that it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from blursynth.camera.hdr import Gamut, Transfer
from blursynth.common.errors import UserError
from blursynth.video.timing import Break

Decoder = Literal["av", "decord", "image"]


class ClipError(UserError):
    """A clip that cannot be used. The message is one line: the file, what is wrong, what to do."""

    def __init__(self, path: str | Path, wrong: str, todo: str, kind: str = "unreadable"):
        self.reason = f"{path}: {wrong}; {todo}"
        self.kind = kind  # one word or two, for counting
        super().__init__(self.reason)


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before it is decoded. Small and picklable; travels to the workers."""

    path: str  # absolute: a video file, a folder of frames, or a picture
    kind: Literal["video", "frames", "still"]
    frames: int  # presentation-order count that the container promises; fields, where they are taken apart
    fps: float | None
    width: int  # after rotation is applied
    height: int
    decoder: Decoder  # decided once, so that all workers agree
    transfer: Transfer = "srgb"  # the curve of its codes
    gamut: Gamut = "bt709"  # its primaries
    deinterlaced: bool = False  # frames are fields, each filled up to a picture
    plain: bool = False  # 8 bits, 4:2:0, even size, upright: decord gives it as PyAV does
    films: int = 1  # video streams; the first is used


@dataclass
class Frame:
    """One frame, or the news that it cannot be trusted."""

    index: int  # presentation order, 0-based
    rgb: (
        np.ndarray | None
    )  # (H, W, 3) uint8 display-encoded RGB, a still's as its file has it; None on a fault
    time_s: float | None  # seconds after the first frame
    fault: str | None  # "decode", "size", "unreadable", "truncated", "interlaced"
    broken: Break | None = None  # the source itself says that the step from the frame before is no usual one
    rate: float | None = None  # frames a second around it, by the source's time stamps
    above: np.ndarray | None = (
        None  # (H, W, 3) float16 light above white, in units of white; None: there is none
    )
