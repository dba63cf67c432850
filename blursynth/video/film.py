"""Video files: what they hold, and their frames or fields through PyAV or decord."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

from blursynth.video.frame import ClipError, ClipInfo, Frame
from blursynth.video.packets import PacketIndex, count_frames, films, packet_index, stream_rate, video_stream
from blursynth.video.picture import Converter, Holding, Picture, gamut_of, is_plain, transfer_of
from blursynth.video.reader import Reader, open_video

KEEP = 3  # open readers of a process: a task walks few clips at a time, and each holds a decoder's pictures


def probe_film(path: Path, fps: float | None, deinterlace: bool = False) -> ClipInfo:
    """Reads headers (or demuxes, where the header holds no count) and decodes one frame. Raises ClipError."""
    name = str(path)
    try:
        with closing(av.open(name)) as c:
            rate, streams = stream_rate(c, video_stream(c)), len(films(c))
        frames = count_frames(name)
    except IndexError:
        raise ClipError(path, "holds no video stream", "give a video", "no video") from None
    except (av.error.FFmpegError, OSError, ValueError) as e:
        raise ClipError(
            path,
            f"is not a readable video ({getattr(e, 'strerror', None) or e})",
            "check that it plays; a file cut off while copying has lost its index (copy it again)",
        ) from None
    if frames < 1:
        raise ClipError(path, "holds no frames", "record or convert it again", "empty")
    frame = _first_frame(name)
    if frame is None:
        raise ClipError(path, "none of its first frames decodes", "check that it plays, convert it again")
    rate = rate or packet_index(name).timing.rate(0)  # a GIF says only how long each frame lasts
    info = ClipInfo(
        name, "video", frames, rate or fps, *Holding().size(frame), "av", transfer_of(frame), gamut_of(frame),
        plain=is_plain(frame), films=streams,
    )  # fmt: skip
    if _pictures(Converter(info.transfer, info.gamut), frame) is None:
        raise ClipError(
            path,
            f"FFmpeg cannot convert its colours (matrix {int(frame.colorspace)}, curve {int(frame.color_trc)} of ITU-T H.273)",
            "convert it to BT.709 with the program that wrote it",
            "colours",
        )
    if not frame.interlaced_frame:
        return info
    if not deinterlace:
        raise ClipError(
            path,
            "is interlaced: each frame shows two instants",
            "add --deinterlace, which makes a frame of each field",
            "interlaced",
        )
    rate = packet_index(name).timing.rate(0) or info.fps  # containers say the fields' rate or the frames'
    return replace(info, deinterlaced=True, frames=2 * frames, fps=rate and 2 * rate)


def _first_frame(path: str, tries: int = 300) -> av.VideoFrame | None:
    """The first frame that decodes."""
    container, stream = open_video(path)
    with closing(container):
        try:
            for n, packet in enumerate(container.demux(stream)):
                try:
                    for frame in stream.codec_context.decode(packet):
                        return frame
                except (av.error.FFmpegError, ValueError):
                    pass
                if n >= tries:
                    break
        except (av.error.FFmpegError, OSError):
            pass
    return None


def read_film(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    """Frames ``first..last`` of a video file."""
    if info.deinterlaced:
        yield from _read_fields(info, first, last)
        return
    if info.decoder == "decord":
        yield from _read_decord(info, first, last)
        return
    convert = Converter(info.transfer, info.gamut)
    for frame, decoded in _decode(info, first, last):
        if decoded is not None and decoded.interlaced_frame:
            frame.fault = "interlaced"
        elif decoded is not None and (pictures := _pictures(convert, decoded)):
            ((frame.rgb, frame.above),) = pictures
        elif decoded is not None:
            frame.fault = "decode"
        yield frame


def _pictures(convert: Converter, decoded: av.VideoFrame | None) -> list[Picture] | None:
    """What comes out for one frame in, None flushes; None where FFmpeg has no way from its colours to RGB."""
    try:
        return list(convert.pictures(decoded))
    except (av.error.FFmpegError, OSError):
        convert.reset()
        return None


# Through PyAV

_idle: OrderedDict[tuple, Reader] = OrderedDict()
_owner = os.getpid()


def _borrow(info: ClipInfo, first: int) -> tuple[tuple, Reader]:
    global _owner
    if _owner != os.getpid():  # a decoder does not survive a fork
        _idle.clear()
        _owner = os.getpid()
    st = Path(info.path).stat()
    key = (info.path, st.st_size, st.st_mtime_ns)
    reader = _idle.pop(key, None) or Reader(info.path)
    try:
        reader.go_to(first)
    except BaseException:
        reader.close()
        raise
    return key, reader


def _decode(info: ClipInfo, first: int, last: int) -> Iterator[tuple[Frame, av.VideoFrame | None]]:
    """Each frame as the file knows it, without its picture yet, and what the decoder gave where it can be trusted."""
    try:
        key, reader = _borrow(info, first)
    except (av.error.FFmpegError, OSError, IndexError):
        yield from ((Frame(i, None, None, "unreadable"), None) for i in range(first, last + 1))
        return
    holding = Holding()
    try:
        for i, decoded in reader.frames(last):
            frame = _facts(reader.index, i)
            if i >= reader.index.whole:
                frame.fault = "truncated"
            elif decoded is None:
                frame.fault = "decode"
            elif holding.size(decoded) != (info.width, info.height):
                frame.fault = "size"
            yield frame, None if frame.fault else decoded
    finally:
        _idle[key] = reader
        while len(_idle) > KEEP:
            _idle.popitem(last=False)[1].close()


def _facts(index: PacketIndex, i: int) -> Frame:
    return Frame(i, None, index.time_s(i), None, index.timing.breaks.get(i), index.timing.rate(i))


# Fields


def _read_fields(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    """Fields ``first..last``, two a frame, each filled up to a picture by FFmpeg's bwdif.

    It looks at the frame before and the one after, so one more is read on either side, and a frame beside a damaged
    one has no fields that can be trusted: a field's bytes do not depend on where a read starts.
    """
    convert = Converter(info.transfer, info.gamut, deinterlace=True)
    end = info.frames // 2 - 1
    start, stop = max(first // 2 - 1, 0), min(last // 2 + 1, end)
    begun, count = start, 0  # the frame after the last damage, and fields that came out since
    fields: dict[int, list[Picture]] = {}
    held: Frame | None = None  # waits for the frame after it

    def take(decoded: av.VideoFrame | None) -> bool:
        nonlocal count
        pictures = _pictures(convert, decoded)
        for picture in pictures or ():
            fields.setdefault(begun + count // 2, []).append(picture)
            count += 1
        return pictures is not None

    for frame, decoded in _decode(info, start, stop):
        if decoded is None or not take(decoded):
            convert.reset()
            fields.clear()
            begun, count = frame.index + 1, 0
        if held is not None:
            yield from _two(held, fields.pop(held.index, []), held.index == begun > 0, first, last)
        held = frame
    if held is not None and stop == end:
        take(None)
        yield from _two(held, fields.pop(held.index, []), held.index == begun > 0, first, last)


def _two(frame: Frame, fields: list[Picture], alone: bool, first: int, last: int) -> Iterator[Frame]:
    """The fields of one frame that lie in ``first..last``; ``alone``: the frame before it cannot be trusted."""
    for n in (0, 1):
        i = 2 * frame.index + n
        if not first <= i <= last:
            continue
        rate = frame.rate and 2 * frame.rate
        time_s = frame.time_s if frame.time_s is None or not rate else frame.time_s + n / rate
        half = Frame(i, None, time_s, frame.fault, None if n else frame.broken, rate)
        if not frame.fault and (alone or len(fields) != 2):
            half.fault = "decode"
        elif not frame.fault:
            half.rgb, half.above = fields[n]
        yield half


# Through decord: for comparison and on request. decord 0.6.0 gives wrong frames on random access into open groups of
# pictures and repeats neighbours over damage without saying so, so it reads forward from frame 0 only. On whole files its
# RGB then equals PyAV's, at about half the speed.


def decord_installed() -> bool:
    """Whether decord is there: it has wheels for Linux on x86-64 and for Windows."""
    return find_spec("decord") is not None


def _read_forward(path: str, first: int, last: int) -> Iterator[tuple[int, np.ndarray | None]]:
    """(index, (H, W, 3) uint8 RGB or None) of ``first..last``; None from the first error on."""
    reader = None
    with suppress(Exception):  # decord's own error class is a plain RuntimeError in some builds
        from decord import VideoReader

        reader = VideoReader(path, num_threads=1)
    for i in range(last + 1):
        rgb = None
        if reader is not None and i < len(reader):
            try:
                rgb = reader.next().asnumpy()
            except Exception:
                reader = None  # nobody knows at which frame it would go on
        if i >= first:
            yield i, rgb


def _read_decord(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    index = packet_index(info.path)
    for i, rgb in _read_forward(info.path, first, last):
        frame = _facts(index, i)
        if rgb is None:
            frame.fault = "decode"
        elif rgb.shape[:2] != (info.height, info.width):
            frame.fault = "size"
        else:
            frame.rgb = rgb
        yield frame
