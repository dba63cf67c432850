"""One open video file: decodes forward through PyAV and knows which of its frames can be trusted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import av
import numpy as np

from blursynth.video.packets import PacketIndex, packet_index, video_stream

_NEVER = int(np.iinfo(np.int64).min)


def open_video(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    container = av.open(path)
    stream = video_stream(container)
    ctx = stream.codec_context
    ctx.thread_type = (
        "NONE"  # one thread a reader: an error belongs to the packet just sent, and cost is steady
    )
    ctx.thread_count = 1
    # Without it libavcodec conceals damage: it paints over what is missing and calls the frame good.
    ctx.options = {"err_detect": "explode"}
    return container, stream


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a decoded frame, upright.

    libswscale takes the matrix (BT.601, BT.709...) and range from the frame; an untagged stream is BT.601
    limited, as in every tool built on FFmpeg. Its settings are the default ones on purpose: the bytes are then
    those that ffmpeg, OpenCV and decord give for the same file.
    """
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class Reader:
    """One open file that decodes forward and knows which frames to trust."""

    def __init__(self, path: str):
        self.path = path
        self.index: PacketIndex = packet_index(path)
        self.order = {int(p): i for i, p in enumerate(self.index.pts)}
        self.next = 0  # every frame below this was handed out already
        self.rewind(None)

    def rewind(self, key: int | None) -> None:
        """Start decoding at the keyframe with this pts, or at the first packet."""
        if hasattr(self, "container"):
            self.close()
        self.container, self.stream = open_video(self.path)
        self.packets = iter(self.container.demux(self.stream))
        self.ready: deque[tuple[int, av.VideoFrame, bool]] = deque()
        self.fed = _NEVER  # pts of the last keyframe that was fed
        self.count = 0  # frames decoded since the start, for streams without timestamps
        self.damaged, self.leading = False, _NEVER
        self.bad: set[int] = set()
        self.ended = False
        self.wait_for = key
        self.warm_up = key is not None
        if key is not None:
            self.container.seek(key, stream=self.stream, backward=True)

    def close(self) -> None:
        self.packets = iter(())
        self.container.close()

    def go_to(self, i: int) -> None:
        """Make ``i`` the next frame, by seeking only where that decodes less than going on."""
        if not self.index.timed:
            if i < self.next:
                self.rewind(None)
        elif i < len(self.index.pts):
            key = self.index.start_for(i)
            if i < self.next or (key is not None and key > self.fed):
                self.rewind(key)
        self.next = i

    def frames(self, last: int) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """(index, frame or None) of ``next..last``."""
        while self.next <= last:
            while not self.ready and not self.ended:
                self._feed()
            if not self.ready:
                break
            i, frame, good = self.ready[0]
            if i > last:
                break
            self.ready.popleft()
            while self.next < i:  # the decoder dropped these
                self.next += 1
                yield self.next - 1, None
            if i == self.next:
                self.next += 1
                yield i, frame if good else None
        while self.next <= last:
            self.next += 1
            yield self.next - 1, None

    def _feed(self) -> None:
        """Send one packet and queue what comes out of it."""
        try:
            packet = next(self.packets)
        except (StopIteration, av.error.FFmpegError, OSError):
            packet = None
        if self.wait_for is not None:
            if (
                packet is None
                or not packet.size
                or ((packet.pts or 0) > self.wait_for and packet.is_keyframe)
            ):
                self.rewind(None)  # this container cannot seek there: decode from the start
                return
            if packet.pts != self.wait_for:
                return
            self.wait_for = None
        if packet is None or not packet.size:
            self.ended = True
            packet = None
        pts = None
        if packet is not None:
            pts = packet.pts
            self._note(packet)
        try:
            out = self.stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            out = []
            if packet is not None:
                self._damage(pts, spreads=not packet.is_disposable)
        for frame in out:
            self._queue(frame)

    def _note(self, packet: av.Packet) -> None:
        pts = packet.pts if packet.pts is not None else 0
        if packet.is_keyframe:
            self.warm_up = self.warm_up and self.fed == _NEVER
            if self.damaged and self.index.timed:
                self.leading = pts  # shown before this keyframe: still built from the damaged group
            self.damaged = self.damaged and not self.index.timed
            self.fed = max(self.fed, pts)
        if self.damaged or pts < self.leading:
            self.bad.add(pts)
        if packet.is_corrupt:
            self._damage(pts, spreads=True)

    def _damage(self, pts: int | None, spreads: bool) -> None:
        if self.warm_up:
            return  # in the group we started at, references before the start are missing; no frame of it is used
        if pts is not None:
            self.bad.add(pts)
        self.damaged = self.damaged or spreads

    def _queue(self, frame: av.VideoFrame) -> None:
        if frame.is_corrupt:
            self._damage(frame.pts, spreads=True)
        if self.index.timed:
            i = self.order.get(frame.pts if frame.pts is not None else -(2**62))
            good = frame.pts not in self.bad
            self.bad.discard(frame.pts or 0)
        else:
            i, good = self.count, not self.damaged
            self.count += 1
        if i is not None and i >= self.next:
            self.ready.append((i, frame, good))
