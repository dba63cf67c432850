"""The packet index of a video file: what it holds and where a read may start, without decoding any of it.

Decoders give frames in presentation order, files store packets in decode order, and neither counts. The
presentation timestamp (pts) joins them: the sorted pts of all packets number the frames, so "frame 137" means
the same picture whether a read starts at 0 or in the middle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

GAP = 1.5  # a step of this many usual steps means that at least one frame is missing in between


@dataclass(frozen=True)
class PacketIndex:
    """Presentation order of one video stream. ``pts`` are ticks of ``tick_s`` seconds, ascending, unique."""

    pts: np.ndarray  # (frames,) int64
    keys: np.ndarray  # (keyframes,) int64, ascending: pts of the packets that a decoder may start at
    gaps: frozenset[int]  # i: the step from frame i - 1 to i is longer than GAP usual steps
    tick_s: float
    timed: bool  # False: the packets carry no usable timestamps; frames are numbered as they are decoded
    whole_until: int  # pts up to which no frame can be missing at the end of a truncated file
    jitter: float  # spread of the steps (95th - 5th percentile) over their median: 0 for a constant rate

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


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The film, not its cover picture. Raises IndexError when there is none."""
    real = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    return real[0]


def count_frames(path: str | Path) -> int:
    """Frames the file promises: from the header where it lists its samples (mp4, mov), else by demuxing."""
    with closing(av.open(str(path))) as c:
        s = video_stream(c)
        entries = s.index_entries
        if s.frames and len(entries) == s.frames:
            return sum(not e.is_discard for e in entries)
    return max(len(packet_index(str(path)).pts), 0)


def packet_index(path: str) -> PacketIndex:
    """Index of a file's video stream, kept for the last few files of this process.

    Demuxes the whole file once and decodes nothing. Raises av.error.FFmpegError, OSError or IndexError.
    """
    st = Path(path).stat()
    return _packet_index(path, st.st_size, st.st_mtime_ns)


@lru_cache(maxsize=32)
def _packet_index(path: str, size: int, mtime_ns: int) -> PacketIndex:
    pts: list[int] = []
    keys: list[int] = []
    untimed = 0
    last_dts: int | None = None
    with closing(av.open(path)) as c:
        s = video_stream(c)
        codec, tick, promised = s.codec.name, float(s.time_base or 0), s.frames
        total = 0
        for p in _demux(c, s):
            total += 1
            if p.dts is not None:
                last_dts = p.dts
            if not shown(p, codec):
                continue
            if p.pts is None:
                untimed += 1
                continue
            pts.append(p.pts)
            if p.is_keyframe:
                keys.append(p.pts)
    order = np.unique(np.array(pts, np.int64))
    timed = not untimed and len(order) == len(pts) > 0 and bool(keys) and tick > 0
    if not timed:
        # Nothing to tell the frames apart by: number them in the order they are decoded.
        order = np.arange(len(pts) + untimed, dtype=np.int64)
    steps = np.diff(order) if timed else np.zeros(0)
    usual = float(np.median(steps)) if len(steps) else 0.0
    gaps = frozenset((np.flatnonzero(steps > GAP * usual) + 1).tolist()) if usual else frozenset()
    spread = float(np.subtract(*np.percentile(steps, [95, 5]))) / usual if usual else 0.0
    # Packets come by ascending dts and none is shown before its dts: what a truncated file has lost can only
    # be shown after the last dts it still has, so frames up to there have all their neighbours.
    short = total < promised and timed and last_dts is not None
    return PacketIndex(
        pts=order,
        keys=np.array(sorted(keys), np.int64) if timed else np.zeros(1, np.int64),
        gaps=gaps,
        tick_s=tick,
        timed=timed,
        whole_until=int(last_dts) if short and last_dts is not None else np.iinfo(np.int64).max,
        jitter=spread,
    )


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Packets with data, until the end or the first read error (the rest of a damaged file is lost)."""
    try:
        yield from (p for p in container.demux(stream) if p.size)
    except (av.error.FFmpegError, OSError):
        return
