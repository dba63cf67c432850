"""Video files in: upright RGB frames with their time stamps, the packets of every other stream, and what was damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from blursynth.camera.orientation import Orientation, parse_display_matrix
from deblur_train.media.pictures import ImageError

COMMON = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".flv", ".wmv")
EXTENSIONS = (*COMMON, ".mpg", ".mpeg", ".ts", ".mts", ".m2ts")
# swscale's flags (bicubic, accurate rounding, full chroma in and out): its default is 1 to 1.5 codes too dark, which is
# invisible in a player and a shift of everything here, where frames are decoded, encoded and decoded again.
ACCURATE = 0x4 | 0x40000 | 0x2000 | 0x4000


class VideoError(ImageError):
    """A video that cannot be read or written; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Colour:
    """The tags of a stream, as FFmpeg numbers them (ITU-T H.273); 2 is unspecified, range 1 limited, 2 full."""

    range: int = 0
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2


@dataclass(frozen=True)
class Shot:
    """One frame: ``(H, W, 3)`` uint8 or uint16 RGB, upright; time stamp and duration in the stream's time base."""

    rgb: np.ndarray
    pts: int
    duration: int


@dataclass(frozen=True)
class VideoFacts:
    time_base: Fraction
    rate: Fraction  # average; frames may be unevenly spaced
    colour: Colour
    aspect: Fraction  # of a pixel, of the upright frame
    frames: int  # expected, 0 when unknown
    chroma: str = "420"  # how colours are sampled: "420", "422", "444", or "rgb"
    bits: int = 8  # of a sample
    alpha: bool = False


class VideoReader:
    """``with VideoReader(path) as v: for item in v``: a :class:`Shot`, or a packet of another stream to be copied.

    ``path`` may be a binary file object (a pipe). Damaged packets are counted in ``damaged``, not concealed: their
    frames are left out and time stamps stay. Raises VideoError when there is no video in it.
    """

    def __init__(self, path: Path | Any, copy: bool = True) -> None:
        self.name = str(path) if isinstance(path, Path) else str(getattr(path, "name", path))
        self.damaged = 0
        self.missing = 0  # frames that the index promises and the file does not hold
        self._reformat = VideoReformatter()
        self._angle: int | None = None
        self._orientation = Orientation()
        # Only this file: a playlist under a video's name must not open others, or addresses.
        local = {"protocol_whitelist": "file"}
        try:
            self.container = (
                av.open(f"file:{path}", options=local) if isinstance(path, Path) else av.open(path)
            )
        except (av.error.FFmpegError, OSError, ValueError) as e:
            why = "damaged, cut off before its index, or of another kind"
            raise VideoError(f"{self.name}: cannot be opened as video ({why}): {reason(e)}") from None
        streams = [
            s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            self.container.close()
            raise VideoError(f"{self.name}: holds no video stream; give a video")
        self.stream = streams[0]
        if self.stream.codec_context is None:
            self.container.close()
            raise VideoError(
                f"{self.name}: no decoder for its video codec; convert it first, for example with ffmpeg -i IN OUT.mp4"
            )
        self.stream.codec_context.thread_type = "NONE"  # an error then belongs to the packet just sent
        self.stream.codec_context.options = {"err_detect": "explode"}
        self.copied = [s for s in self.container.streams if copy and s.type in ("audio", "subtitle")]
        self.chapters = self.container.chapters() if hasattr(self.container, "chapters") else []
        # An mp4's chapters stand a second time in a track of their own.
        own = (self.stream, *self.copied)
        self.left_out = [
            s for s in self.container.streams if s not in own and not (self.chapters and s.type == "data")
        ]
        # Taken now: a closed container knows nothing any more.
        self.time_base = self.stream.time_base or Fraction(1, 90000)
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        # Frames that the file says it holds, 0 when it does not say; other containers count what is not there too.
        self.indexed = self.stream.frames if "mp4" in self.container.format.name else 0
        self.expected = self.indexed or round(self._seconds() * self.rate)
        self.aspect = self.stream.codec_context.sample_aspect_ratio or Fraction(1)
        self._seen = 0
        self._last = -(1 << 62)
        self.size: tuple[int, int] | None = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Shot | av.Packet]:
        packets = self.container.demux([self.stream, *self.copied])
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError):
                self.damaged += 1
                break
            if packet is None:
                break
            if packet.stream.index != self.stream.index:
                if packet.dts is not None:
                    yield packet
                continue
            self._seen += packet.size > 0
            yield from self._decode(packet)
        if self.indexed:
            self.missing = max(0, self.indexed - self._seen)
        elif self._seconds() and self.size and len(self.container.streams) == 1 + len(self.left_out):
            # A damaged Matroska file may just end: told by its duration, where that is not the sound's.
            first = self.stream.start_time or 0
            step = (self._last - first) / max(self._seen - 1, 1) or 1 / (self.rate * self.time_base)
            self.missing = max(0, round((self._seconds() / self.time_base - self._last + first) / step) - 1)

    def _seconds(self) -> Fraction:
        """How long the video is by its own account; 0 when it does not say."""
        if self.stream.duration:
            return self.stream.duration * self.time_base
        written = re.fullmatch(r"(\d+):(\d+):(\d+\.\d{1,6})\d*", self.stream.metadata.get("DURATION", ""))
        if written:
            return Fraction(written[3]) + 60 * int(written[2]) + 3600 * int(written[1])
        return Fraction(self.container.duration or 0, av.time_base)

    def _decode(self, packet: av.Packet) -> Iterator[Shot]:
        try:
            frames = self.stream.codec_context.decode(packet if packet.size else None)
        except (av.error.FFmpegError, ValueError):
            self.damaged += 1
            return
        self.damaged += bool(packet.is_corrupt or any(f.is_corrupt for f in frames))
        for frame in frames:
            yield self._shot(frame)

    def _shot(self, frame: av.VideoFrame) -> Shot:
        rgb = self._upright(frame)
        if self.size is None:
            self.size, self._colour = (rgb.shape[1], rgb.shape[0]), colour_of(frame)
            self._turned = self._orientation.transposed
            self._chroma, parts = chroma_of(frame), frame.format.components
            self._bits, self._alpha = max(c.bits for c in parts), any(c.is_alpha for c in parts)
            # VP8's and VP9's is a film of its own, which this decoder passes over.
            self._alpha |= self.stream.metadata.get("alpha_mode") == "1"
        elif self.size != (rgb.shape[1], rgb.shape[0]):
            raise VideoError(
                f"{self.name}: its frame size changes from {self.size[0]}x{self.size[1]} to "
                f"{rgb.shape[1]}x{rgb.shape[0]} midway; split it there first"
            )
        step = round(1 / (self.rate * self.time_base))
        pts = frame.pts if frame.pts is not None else max(self._last, -step) + step
        self._last = pts = max(pts, self._last + 1)  # an encoder takes no time stamp twice
        return Shot(rgb, pts, int(getattr(frame, "duration", 0) or 0))

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        wide = max(c.bits for c in frame.format.components) > 8
        rgb = self._reformat.reformat(
            frame, format="rgb48le" if wide else "rgb24", interpolation=ACCURATE
        ).to_ndarray()
        if (
            frame.rotation != self._angle
        ):  # looked at rarely: PyAV keeps a frame whose side data was looked at
            self._angle, self._orientation = frame.rotation, orientation_of(frame)
        return self._orientation.upright(rgb)

    def facts(self) -> VideoFacts:
        """Known once the first frame is out."""
        if self.size is None:
            raise VideoError(f"{self.name}: no frame in it can be decoded")
        aspect = 1 / self.aspect if self._turned else self.aspect
        return VideoFacts(
            self.time_base,
            self.rate,
            self._colour,
            aspect,
            self.expected,
            self._chroma,
            self._bits,
            self._alpha,
        )


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How the file says that its frames are to be turned and mirrored."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return parse_display_matrix(None if data is None else bytes(data))


def chroma_of(frame: av.VideoFrame) -> str:
    """ "420", "422", "444" or "rgb"; rarer layouts count as the next finer of these."""
    f = frame.format
    if f.is_rgb:
        return "rgb"
    if len(f.components) < 3:
        return "420"  # grey: what every player takes
    across, down = f.chroma_width(64) < 64, f.chroma_height(64) < 64
    return "444" if not across else "420" if down else "422"


def colour_of(frame: av.VideoFrame) -> Colour:
    full = frame.format.name.startswith("yuvj")  # an older way of saying full range
    return Colour(
        2 if full else int(frame.color_range),
        int(frame.colorspace),
        int(frame.color_primaries),
        int(frame.color_trc),
    )


def reason(e: BaseException) -> str:
    """FFmpeg's words for what went wrong, without number and file name."""
    return getattr(e, "strerror", None) or str(e) or type(e).__name__
