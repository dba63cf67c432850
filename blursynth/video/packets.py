"""The packet index of a video file: what it holds and where a read may start, without decoding any of it.

Decoders give frames in presentation order, files store packets in decode order, and neither counts. The
presentation timestamp (pts) joins them: the sorted pts of all packets number the frames, so "frame 137" means
the same picture whether a read starts at 0 or in the middle.

Files joined end to end start their clock anew: each part is put behind the one before. Where stamps are missing or
stand twice, frames are numbered as the decoder gives them and such a file is read from its start only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from blursynth.video.field_pairs import FieldPairs
from blursynth.video.frame import UNTIMED, Timing, find_timing

# A stream without a container: libavformat makes its stamps up (at 25 fps), so they say nothing.
BARE = frozenset({"h264", "hevc", "mpegvideo", "m4v", "vvc", "obu", "cavsvideo", "h263", "h261", "mjpeg"})
# Containers without presentation stamps. libavformat makes them up out of the pictures' types, but those of H.264 say
# nothing: its stamps then ascend in decode order, in which B-frames are not shown.
UNSTAMPED = frozenset({"avi", "asf"})
BACKWARD_S = 0.5  # decode stamps that fall back further than this begin a new part


@dataclass(frozen=True)
class PacketIndex:
    """Presentation order of one video stream."""

    frames: int
    pts: np.ndarray  # (frames,) int64, ascending, in ticks of tick_s; of no meaning where not timed
    keys: np.ndarray  # (keyframes,) int64, ascending: pts of the packets that a decoder may start at
    order: (
        np.ndarray | None
    )  # (frames,) int64: frame number of each packet in decode order; None where not timed
    exact: bool  # order holds; False: stamps stand twice, so that the decoder has the last word on their neighbours
    seekable: bool  # pts are those of the file, and no two are the same
    timed: bool  # pts say when frames are shown
    tick_s: float
    whole: int  # so many first frames have all their neighbours, in a file that was cut off
    timing: Timing

    def time_s(self, i: int) -> float | None:
        """Seconds from the first frame to frame ``i``."""
        return float(self.pts[i] - self.pts[0]) * self.tick_s if self.timed and i < len(self.pts) else None

    def start_for(self, i: int) -> int | None:
        """pts of the keyframe to start at so that frame ``i`` decodes as in a read from the start; None: the start.

        That is the keyframe before the last one shown at or before the frame. The nearest one gives the same
        pictures in closed groups, but libavcodec reports errors for a while after an open group's keyframe (its
        leading pictures refer to what was skipped), and under intra refresh a "keyframe" only begins a recovery.
        Leading pictures are shown before their keyframe, so the rule starts one more group earlier for them.
        """
        k = bisect_right(self.keys, int(self.pts[i])) - 2  # type: ignore[type-var]
        return int(self.keys[k]) if k > 0 else None


def shown(packet: av.Packet, codec: str) -> bool:
    """False for packets that give no picture: edit-list leftovers and VP8's hidden reference frames."""
    if packet.is_discard or not packet.size:
        return False
    # RFC 6386, 9.1: bit 4 of a VP8 frame's first byte is show_frame.
    return codec != "vp8" or bool(bytes(memoryview(packet)[:1])[0] >> 4 & 1)


def films(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams that are film, not cover pictures."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The film, not its cover picture. Raises IndexError when there is none."""
    return films(container)[0]


def stream_rate(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Frames a second by the file's own account; None where only a guess of libavformat is there: 25, or what the first
    frames of a GIF last."""
    rate = stream.average_rate or stream.guessed_rate
    if container.format.name == "gif":
        return None
    if set(container.format.name.split(",")) & BARE:
        rate = stream.codec_context.framerate
    return float(rate) if rate else None


def count_frames(path: str | Path) -> int:
    """Frames the file promises: from the header where it lists its samples (mp4, mov), else by demuxing."""
    with closing(av.open(str(path))) as c:
        s = video_stream(c)
        entries = s.index_entries
        if "mp4" in c.format.name and s.frames and len(entries) == s.frames:
            return sum(not e.is_discard for e in entries)
    return packet_index(str(path)).frames


def packet_index(path: str) -> PacketIndex:
    """Index of a file's video stream, kept for the last few files of this process.

    Demuxes the whole file once and decodes nothing. Raises av.error.FFmpegError, OSError or IndexError.
    """
    st = Path(path).stat()
    return _packet_index(path, st.st_size, st.st_mtime_ns)


@lru_cache(maxsize=32)
def _packet_index(path: str, size: int, mtime_ns: int) -> PacketIndex:
    stamps: list[int | None] = []  # of the packets that give a picture, in decode order
    decode: list[int | None] = []
    is_key: list[bool] = []
    total, last_dts, begins = 0, None, False
    with closing(av.open(path)) as c:
        s = video_stream(c)
        fields = FieldPairs(c, s)
        codec, tick, promised = s.codec.name, float(s.time_base or 0), s.frames
        if "mp4" in c.format.name and s.index_entries:
            promised = min(promised, len(s.index_entries))  # an edit list drops what no frame of it needs
        kinds, nominal = set(c.format.name.split(",")), stream_rate(c, s)
        for p in _demux(c, s):
            total += 1
            begins |= p.is_keyframe  # of a film that was trimmed, an edit list may hide every one
            last_dts = p.dts if p.dts is not None else last_dts
            if shown(p, codec) and not fields.is_second(p):
                stamps.append(p.pts)
                decode.append(p.dts)
                is_key.append(p.is_keyframe)
        reorders = bool(kinds & UNSTAMPED) and s.codec_context.has_b_frames
    if "avi" in kinds and last_dts is not None:
        total = max(total, last_dts + 1)  # an empty chunk stands for a frame that was never recorded
    n = len(stamps)
    timed = n > 0 and tick > 0 and begins and not kinds & BARE and not (reorders and _ascend(stamps))
    pts, parts = _unrolled(stamps, decode, is_key, tick) if timed else (None, 1)
    if pts is None:
        # Nothing to tell the frames apart by: number them in the order they are decoded.
        none = np.arange(n, dtype=np.int64)
        return PacketIndex(n, none, np.zeros(1, np.int64), None, False, False, False, tick, n, UNTIMED)
    order = np.argsort(pts, kind="stable")
    ordered = pts[order]
    unique = bool((np.diff(ordered) > 0).all())
    numbers = np.empty(n, np.int64)
    numbers[order] = np.arange(n)
    seekable = unique and parts == 1
    # Packets come by ascending dts and none is shown before its dts: what a truncated file has lost can only
    # be shown after the last dts it still has, so frames up to there have all their neighbours.
    short = total < promised and seekable and last_dts is not None
    return PacketIndex(
        frames=n,
        pts=ordered,
        keys=np.sort(pts[np.array(is_key)]),
        order=numbers,
        exact=unique,
        seekable=seekable,
        timed=True,
        tick_s=tick,
        whole=int(np.searchsorted(ordered, last_dts, side="right")) if short and last_dts is not None else n,
        timing=find_timing(ordered, tick, nominal),
    )


def _unrolled(
    stamps: list[int | None], decode: list[int | None], is_key: list[bool], tick_s: float
) -> tuple[np.ndarray | None, int]:
    """pts of each packet on one clock, and of how many parts the file was joined; None where stamps are missing."""
    # Matroska drops stamps below zero: the first keyframe's leading pictures in a film cut by copying.
    first = is_key.index(True) if any(is_key) else 0
    after = first + 1
    while after < len(stamps) and stamps[after] is None:
        after += 1
    known = [p for p in stamps if p is not None]
    step = max(1, round(float(np.median(np.diff(np.unique(known)))))) if len(set(known)) > 1 else 1
    if stamps[first] is not None:
        for back, n in enumerate(range(after - 1, first, -1), 1):
            stamps[n] = stamps[first] - back * step  # type: ignore[operator]
    if any(p is None for p in stamps):
        return None, 1
    pts = np.array(stamps, np.int64)
    clock = [d for d in decode if d is not None]
    if len(clock) < len(pts):
        return pts, 1
    falls = np.flatnonzero(np.diff(np.array(clock, np.float64)) < -BACKWARD_S / tick_s) + 1
    edges = [0, *falls.tolist(), len(pts)]
    for a, b, c in zip(edges, edges[1:], edges[2:]):
        pts[b:c] += pts[a:b].max() + step - pts[b:c].min()
    return pts, len(edges) - 1


def _ascend(stamps: list[int | None]) -> bool:
    return all(a is None or b is None or a < b for a, b in pairwise(stamps))


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets with data, until the end or the first read error (the rest of a damaged file is lost)."""
    try:
        yield from (p for p in container.demux(stream) if p.size)
    except (av.error.FFmpegError, OSError):
        return
