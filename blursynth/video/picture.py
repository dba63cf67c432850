"""A decoded frame as a picture: upright RGB as FFmpeg gives it, or the light of film that holds more than SDR."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from blursynth.camera.hdr import Gamut, Transfer, codes_to_light, split_at_white
from blursynth.camera.orientation import Orientation, parse_display_matrix

Picture = tuple[np.ndarray, np.ndarray | None]
"""(H, W, 3) uint8 RGB, and float16 light above white where there is any."""

TRANSFERS: dict[int, Transfer] = {8: "linear", 16: "pq", 18: "hlg"}  # ITU-T H.273, table 3
GAMUTS: dict[int, Gamut] = {9: "bt2020", 11: "p3", 12: "p3"}  # ITU-T H.273, table 2

_PLAIN = ["scale=flags=bicubic:threads=1", "format=pix_fmts=rgb24"]
# Full chroma and exact rounding: libswscale's quick paths cut the depth that the curve needs.
_DEEP = [
    "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:threads=1",
    "format=pix_fmts=rgb48le",
]


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How the film's display matrix says that the frame is to be turned and mirrored."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return parse_display_matrix(None if data is None else bytes(data))


class Holding:
    """How a stream is to be turned: its matrix is looked at once, and again where the angle changes.

    PyAV ties a frame whose side data was looked at into a circle of references, so that it stays until Python's
    collector comes by: with one look a frame the memory of a reader would grow by hundreds of frames.
    """

    def __init__(self) -> None:
        self._angle: int | None = None
        self._orientation = Orientation()

    def of(self, frame: av.VideoFrame) -> Orientation:
        if frame.rotation != self._angle:
            self._angle, self._orientation = frame.rotation, orientation_of(frame)
        return self._orientation

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        turned = self.of(frame).transposed
        return (frame.height, frame.width) if turned else (frame.width, frame.height)


def transfer_of(frame: av.VideoFrame) -> Transfer:
    """The curve that the stream's tag names; srgb stands for all of SDR and for no tag."""
    return TRANSFERS.get(int(frame.color_trc), "srgb")


def gamut_of(frame: av.VideoFrame) -> Gamut:
    """The primaries that the stream's tag names; bt709 stands for all of SDR's and for no tag."""
    return GAMUTS.get(int(frame.color_primaries), "bt709")


def is_plain(frame: av.VideoFrame) -> bool:
    """8-bit 4:2:0 of even size, upright and SDR: what every decoder turns into the same RGB."""
    eight = frame.format.name in ("yuv420p", "yuvj420p")
    upright = orientation_of(frame) == Orientation() and not (frame.width % 2 or frame.height % 2)
    return eight and upright and transfer_of(frame) == "srgb" and gamut_of(frame) == "bt709"


def _setting_of(frame: av.VideoFrame) -> tuple[Any, ...]:
    """What the scale filter is set up for."""
    return frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range)


class Converter:
    """Turns decoded frames into pictures through FFmpeg's own scale filter, set up once for a stream.

    libswscale takes the matrix (BT.601, BT.709...), the range and the place of the chroma samples from the frame; an
    untagged stream is BT.601 limited, as in every tool built on FFmpeg. The bytes are those that the ffmpeg command
    gives for ``-pix_fmt rgb24``; for 8-bit 4:2:0 of even size OpenCV and decord give the same.
    """

    def __init__(self, transfer: Transfer = "srgb", gamut: Gamut = "bt709", deinterlace: bool = False):
        self.transfer, self.gamut = transfer, gamut
        self.deep = transfer != "srgb" or gamut != "bt709"
        self.fields = ["bwdif=mode=send_field:parity=auto:deint=all"] if deinterlace else []
        self._holding = Holding()
        self._graph: av.filter.Graph | None = None
        self._setting: tuple[Any, ...] = ()

    def picture(self, frame: av.VideoFrame) -> Picture:
        """(H, W, 3) uint8 RGB, upright, and the light above white where the film holds any (`split_at_white`)."""
        return next(self.pictures(frame))

    def pictures(self, frame: av.VideoFrame | None) -> Iterator[Picture]:
        """What comes out for one frame in: a picture, or as many fields as are complete; None flushes."""
        if frame is not None:
            if (setting := _setting_of(frame)) != self._setting:
                yield from self._pass(None)  # the fields of frames in the colours so far
                self.reset()
                self._set_up(frame, setting)
            self._orientation = self._holding.of(frame)
        yield from self._pass(frame)

    def _pass(self, frame: av.VideoFrame | None) -> Iterator[Picture]:
        if self._graph is None:
            return
        self._graph.push(frame)
        while True:
            try:
                out: Any = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield self._finish(out.to_ndarray())

    def reset(self) -> None:
        """Forget the fields of earlier frames."""
        self._graph, self._setting = None, ()

    def _finish(self, codes: np.ndarray) -> Picture:
        upright = self._orientation.upright(codes)
        if not self.deep:
            return upright, None
        return split_at_white(codes_to_light(upright, self.transfer, self.gamut))

    def _set_up(self, frame: av.VideoFrame, setting: tuple[Any, ...]) -> None:
        name, width, height, matrix, levels = setting
        graph = av.filter.Graph()
        base = frame.time_base or Fraction(1, 1000)
        last = graph.add(
            "buffer",
            f"video_size={width}x{height}:pix_fmt={name}:time_base={base.numerator}/{base.denominator}"
            f":colorspace={matrix}:range={levels}",
        )
        for step in [*self.fields, *(_DEEP if self.deep else _PLAIN), "buffersink"]:
            kind, _, options = step.partition("=")
            node = graph.add(kind, options or None)
            last.link_to(node)
            last = node
        graph.configure()
        self._graph, self._setting = graph, setting
