"""One open video file: decodes forward through PyAV and knows which of its frames can be trusted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

import av

from blursynth.video.field_pairs import FieldPairs
from blursynth.video.packets import PacketIndex, packet_index, shown, video_stream

INSIDE = 20
"""Packets that can be in a decoder at once: 16 reordered pictures is the most that H.264 and HEVC allow."""
_ERRORS = (av.error.FFmpegError, OSError, ValueError)


class State(Enum):
    """What the reader knows of the references that the decoder holds."""

    ARRIVING = (
        "after a seek, to the end of the group it led to: nothing is handed out and errors mean nothing"
    )
    SOUND = "every reference is there"
    BROKEN = "a reference was damaged, or none was there yet: no frame counts up to the next keyframe"


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


class Reader:
    """One open file that decodes forward and knows which frames to trust.

    Packets are told apart by their pts, or, in a file that cannot be sought, by their number. That number goes
    through the decoder in the place of the pts, so that each frame says which packet it comes from.
    """

    def __init__(self, path: str):
        self.path = path
        self.index: PacketIndex = packet_index(path)
        self.counted = not self.index.exact  # frames are numbered as they come out of the decoder
        self.order: dict[int, int] = {}  # frame number of each packet, as far as stamps tell
        if self.index.seekable:
            self.order = {int(p): i for i, p in enumerate(self.index.pts)}
        elif self.index.order is not None:
            self.order = dict(enumerate(self.index.order.tolist()))
        self.next = 0  # every frame below this was handed out already
        self._start(None)

    def _start(self, key: int | None) -> None:
        """Start decoding at the keyframe with this pts, or at the first packet."""
        self.container, self.stream = open_video(self.path)
        self.packets = iter(self.container.demux(self.stream))
        self.fields = FieldPairs(self.container, self.stream)
        self.name: int | None = None  # of the last packet that was fed
        self.ready: deque[tuple[int, av.VideoFrame, int | None]] = deque()
        self.state = State.BROKEN if key is None else State.ARRIVING
        self.arrive_at = key  # the packet that a seek must lead to; None once it is there
        self.key: int | None = None  # the last keyframe that was fed
        self.leading_of: int | None = None  # frames shown before this keyframe refer to what is lost
        self.bad: set[int] = set()  # packets whose frames cannot be trusted
        self.turn = 0  # packets fed so far
        self.inside: dict[int, int] = {}  # the last of them, and the turn of each
        self.waiting: set[int | None] = set()  # those whose frame has not come out
        self.fed = 0  # of them, those that give a picture
        self.count = 0  # frames so far, where the decoder's order numbers them
        self.recount: int | None = None  # the keyframe from which counting goes on after damage
        self.early = 0  # frames shown before it though they were fed after it
        self.ended = False
        if key is not None:
            self.container.seek(key, stream=self.stream, backward=True)

    def rewind(self, key: int | None) -> None:
        self.close()
        self._start(key)

    def close(self) -> None:
        self.packets = iter(())
        self.container.close()

    def go_to(self, i: int) -> None:
        """Make ``i`` the next frame, by seeking only where that decodes less than going on."""
        if not self.index.seekable:
            if i < self.next:
                self.rewind(None)
        elif i < self.index.frames:
            key = self.index.start_for(i)
            if i < self.next or (key is not None and (self.key is None or key > self.key)):
                self.rewind(key)
        self.next = i

    def frames(self, last: int) -> Iterator[tuple[int, av.VideoFrame | None]]:
        """(index, frame or None) of ``next..last``."""
        while self.next <= last:
            while not self.ended and not (self.ready and self._is_settled(self.ready[0][2])):
                self._feed()
            if not self.ready:
                break
            i, frame, name = self.ready[0]
            if i > last:
                break
            self.ready.popleft()
            while self.next < i:  # the decoder dropped these
                self.next += 1
                yield self.next - 1, None
            if i == self.next:
                self.next += 1
                good = name not in self.bad
                self.bad -= {name}
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
        if packet is not None and not packet.size:
            packet = None
        if self.arrive_at is not None:
            beyond = packet is None or ((packet.pts or 0) > self.arrive_at and packet.is_keyframe)
            if beyond:
                self.rewind(None)  # this container cannot seek there: decode from the start
                return
            if packet is None or packet.pts != self.arrive_at:
                return
            self.arrive_at = None
        self.ended = packet is None
        name = self.name = None if packet is None else self._name(packet)
        if packet is not None:
            self._note(packet, name)
            self._enter(packet, name)
        try:
            out = self.stream.codec_context.decode(packet)
        except _ERRORS:
            out = []
            if packet is not None:
                self.waiting -= {name}
                self._damage(name, spreads=not packet.is_disposable)
        for frame in out:
            self._queue(frame)

    def _name(self, packet: av.Packet) -> int | None:
        """What tells this packet from the others; its frame will bear it as pts."""
        second = self.fields.is_second(packet)
        if self.index.seekable:
            return self.name if second else packet.pts
        if second:
            packet.pts = packet.dts = self.name
            return self.name
        if not shown(packet, self.stream.codec_context.name):
            packet.pts = None
            return None
        packet.pts = packet.dts = self.fed
        self.fed += 1
        return packet.pts

    def _enter(self, packet: av.Packet, name: int | None) -> None:
        if name is None or name in self.inside or not shown(packet, self.stream.codec_context.name):
            return
        self.turn += 1
        self.inside[name] = self.turn
        self.waiting.add(name)
        while len(self.inside) > INSIDE:  # of such an age it was dropped
            oldest = next(iter(self.inside))
            del self.inside[oldest]
            self.waiting -= {oldest}

    def _note(self, packet: av.Packet, name: int | None) -> None:
        """Follow what this packet does to the state."""
        if packet.is_keyframe and name is None and self.key is None and not self.bad:
            self.state = State.SOUND  # an edit list hides it, and shows what follows
        if packet.is_keyframe and name is not None:
            if self.state is State.BROKEN:
                if self.key is not None or self.bad:
                    self.leading_of, self.recount, self.early = name, name, 0
                self.state = State.SOUND
            elif self.state is State.ARRIVING and self.key is not None:
                self.state = State.SOUND
            self.key = name
        if self.state is State.BROKEN or (self._is_leading(name) and self.leading_of == self.key):
            self._distrust(name)
        if packet.is_corrupt:
            self._damage(name, spreads=True)

    def _is_leading(self, name: int | None) -> bool:
        """True for a packet that is fed after the last keyframe and shown before it."""
        if self.key is None:
            return False
        if self.index.seekable:
            return name is None or name < self.key  # no stamp: below zero in Matroska
        return name in self.order and self.order[name] < self.order[self.key]

    def _damage(self, name: int | None, spreads: bool) -> None:
        if self.state is State.ARRIVING:
            return
        self._distrust(name)
        if self._is_leading(name):
            self.leading_of = self.key  # nothing shown after the keyframe refers to what is shown before it
        elif spreads or self.counted:  # of how many frames the count is out, nobody knows
            self.state = State.BROKEN

    def _distrust(self, name: int | None) -> None:
        if name is not None:
            self.bad.add(name)

    def _queue(self, frame: av.VideoFrame) -> None:
        name = frame.pts
        self.waiting -= {name}
        if frame.is_corrupt:
            self._damage_of_the_past(name)
        if not self.counted:
            i = None if name is None else self.order.get(name)
        elif self._recounting(name):
            return
        else:
            i, self.count = self.count, self.count + 1
        if i is not None and i >= self.next:
            self.ready.append((i, frame, name))

    def _is_settled(self, name: int | None) -> bool:
        """False while a frame that this one may refer to is in the decoder: some damage shows only on what comes out."""
        turn = self.inside.get(name, 0) if name is not None else 0
        return not any(self.inside[n] < turn for n in self.waiting if n is not None)

    def _damage_of_the_past(self, name: int | None) -> None:
        """Damage that shows only now on a finished frame: what was fed since then may refer to it."""
        if self.state is State.ARRIVING:
            return
        self._distrust(name)
        turn = self.inside.get(name, self.turn) if name is not None else self.turn
        key_turn = self.inside.get(self.key, 0) if self.key is not None else 0
        for other, at in self.inside.items():
            if at > turn and (key_turn <= turn or at < key_turn or self._is_leading(other)):
                self._distrust(other)
        if key_turn > turn:
            self.leading_of = self.key
        elif not self._is_leading(name):
            self.state = State.BROKEN

    def _recounting(self, name: int | None) -> bool:
        """Where only the decoder's order numbers frames: True from a damage to the next keyframe's own frame.

        Its number is told by its stamp; without stamps by the packets fed before it and those shown before it though
        they were fed after it.
        """
        if self.recount is None:
            return self.state is State.BROKEN
        if name != self.recount:
            self.early += name is not None and name > self.recount
            return True
        self.count = max(self.count, self.order.get(self.recount, self.recount + self.early))
        self.recount = None
        return False
