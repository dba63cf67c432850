"""Frames out of video files and frame folders: the front door of everything that decodes.

A frame's bytes depend on the source's bytes alone: not on where a read starts, nor on the worker. PyAV decodes
by default. On whole files PyAV, decord and OpenCV give equal RGB (all hand libswscale the stream's matrix and
range), PyAV is the fastest of them, and only PyAV can be made to say which frames are damaged.

Nothing here raises for bad data once a clip is probed: a frame that cannot be trusted comes as ``fault``, and
what follows it in the same group of pictures does too, because a decoder would build it from the damage.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import av
import numpy as np

from blursynth.common.errors import UserError
from blursynth.video.decord_reader import installed, read_forward
from blursynth.video.packets import PacketIndex, count_frames, packet_index, stream_rate, video_stream
from blursynth.video.picture import size_of, to_rgb
from blursynth.video.reader import Reader, open_video
from blursynth.video.stills import folder_order, frame_files, read_still, still_size, usual_size
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

    path: str  # absolute: a video file or a folder of frames
    kind: Literal["video", "frames"]
    frames: int  # presentation-order count that the container promises
    fps: float | None
    width: int  # after rotation is applied
    height: int
    decoder: Decoder  # decided once at probing, so that all workers agree


@dataclass
class Frame:
    """One frame, or the news that it cannot be trusted."""

    index: int  # presentation order, 0-based
    rgb: np.ndarray | None  # (H, W, 3) uint8 display-encoded RGB; None on a fault
    time_s: float | None  # seconds after the first frame
    fault: str | None  # "decode", "size", "unreadable", "truncated"
    broken: Break | None = None  # the source itself says that the step from the frame before is no usual one


def probe_clip(
    path: Path | str, fps: float | None = None, decoder: Literal["auto", "av", "decord"] = "auto"
) -> ClipInfo:
    """Size, rate, frame count and decoder of a video file or a folder of frames. Raises ClipError.

    Reads headers (or demuxes, where the header holds no count) and decodes one frame. ``fps`` is used where the
    source does not say. ``decoder="decord"`` reads forward from frame 0 only and cannot see damage: for files
    known to be whole; "auto" is PyAV.
    """
    path = Path(path).absolute()
    if path.is_dir():
        return _probe_folder(path, fps)
    try:
        if path.stat().st_size == 0:
            raise ClipError(path, "the file is empty", "copy or record it again", "empty")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ClipError(path, "no such file", "check the path", "missing") from None
    except OSError as e:
        raise ClipError(path, f"cannot be opened ({e.strerror})", "check its permissions") from None
    return _probe_video(path, fps, decoder)


def read_frames(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    """Every frame ``first..last`` (both in) once, in order. Never raises for bad data; memory stays flat.

    A run that starts where the last one of this process stopped goes on decoding from there. Raises ValueError
    for a range outside the clip.
    """
    if not 0 <= first <= last < info.frames:
        raise ValueError(f"{info.path}: frames {first}..{last} are not within 0..{info.frames - 1}")
    if info.kind == "frames":
        yield from _read_folder(info, first, last)
    elif info.decoder == "decord":
        yield from _read_decord(info, first, last)
    else:
        yield from _read_av(info, first, last)


# Folders of frames


def _probe_folder(path: Path, fps: float | None) -> ClipInfo:
    try:
        files = frame_files(path)
    except OSError as e:
        raise ClipError(path, f"cannot be listed ({e.strerror})", "check its permissions") from None
    if not files:
        raise ClipError(
            path, "holds no PNG, JPEG, WebP, BMP or TIFF frames", "give a folder of frames", "empty"
        )
    size = usual_size(files)
    for file in islice((f for f in files if size and still_size(f) == size), 8):  # the first may be damaged
        img = read_still(file)
        if img is not None:
            h, w = img.shape[:2]
            return ClipInfo(str(path), "frames", len(files), fps, w, h, "image")
    raise ClipError(
        path, f"none of its first {min(8, len(files))} frames can be read", "extract the frames again"
    )


def _read_folder(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    try:
        names, gaps, _ = folder_order(info.path)
    except OSError:
        names, gaps = [], frozenset()
    files = [Path(info.path) / n for n in names]
    for i in range(first, last + 1):
        img = read_still(files[i]) if i < len(files) else None
        fault = None
        if img is None:
            fault = "unreadable"
        elif img.shape[:2] != (info.height, info.width):
            img, fault = None, "size"
        yield Frame(i, img, i / info.fps if info.fps else None, fault, "gap" if i in gaps else None)


# Video files through PyAV


def _probe_video(path: Path, fps: float | None, decoder: str) -> ClipInfo:
    name = str(path)
    try:
        with closing(av.open(name)) as c:
            stream = video_stream(c)
            rate = stream_rate(c, stream)
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
    size = _first_size(name)
    if size is None:
        raise ClipError(path, "none of its first frames decodes", "check that it plays, convert it again")
    if decoder == "decord" and not installed():
        raise ClipError(
            path, "decord is not installed on this machine", "use the default decoder", "no decoder"
        )
    return ClipInfo(name, "video", frames, rate or fps, *size, "decord" if decoder == "decord" else "av")


def _first_size(path: str, tries: int = 300) -> tuple[int, int] | None:
    """(width, height) of the first frame that decodes, rotation applied."""
    container, stream = open_video(path)
    with closing(container):
        try:
            for n, packet in enumerate(container.demux(stream)):
                try:
                    for frame in stream.codec_context.decode(packet):
                        return size_of(frame)
                except (av.error.FFmpegError, ValueError):
                    pass
                if n >= tries:
                    break
        except (av.error.FFmpegError, OSError):
            pass
    return None


_KEEP = 3  # open readers of a process: a task walks few clips at a time, and each holds a decoder's pictures
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


def _read_av(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    try:
        key, reader = _borrow(info, first)
    except (av.error.FFmpegError, OSError, IndexError):
        yield from (Frame(i, None, None, "unreadable") for i in range(first, last + 1))
        return
    index = reader.index
    try:
        for i, frame in reader.frames(last):
            yield _checked(info, index, i, frame)
    finally:
        _idle[key] = reader
        while len(_idle) > _KEEP:
            _idle.popitem(last=False)[1].close()


def _checked(info: ClipInfo, index: PacketIndex, i: int, frame: av.VideoFrame | None) -> Frame:
    time_s, broken = index.time_s(i), index.timing.breaks.get(i)
    if i >= index.whole:
        return Frame(i, None, time_s, "truncated", broken)
    if frame is None:
        return Frame(i, None, time_s, "decode", broken)
    if size_of(frame) != (info.width, info.height):
        return Frame(i, None, time_s, "size", broken)
    return Frame(i, to_rgb(frame), time_s, None, broken)


# Video files through decord (on request)


def _read_decord(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    index = packet_index(info.path)
    for i, rgb in read_forward(info.path, first, last):
        fault = "decode" if rgb is None else None
        if rgb is not None and rgb.shape[:2] != (info.height, info.width):
            rgb, fault = None, "size"
        yield Frame(i, rgb, index.time_s(i), fault, index.timing.breaks.get(i))
