"""A live frame loop: the newest frame is restored, older ones are dropped, so that latency stays at a frame's work.

A capture thread reads the source as fast as it gives frames and keeps the last one in a slot; the loop takes it when
the network is free. Nothing queues: if the network takes 300 ms and frames come every 40 ms, each restored frame is
at most 340 ms old when it is out, for as long as the loop runs.

    for result in live(camera(0), load_generator("best.safetensors")):
        show(result.rgb)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from deblur_train.inference.tiles import restore

KEPT = 10_000  # latencies that statistics are taken from: the last ones, so that a loop may run for ever
LOOK = 0.2  # seconds between looks at ``stop`` while the source gives nothing


@dataclass(frozen=True)
class Captured:
    rgb: np.ndarray  # (H, W, 3) uint8 or uint16
    index: int  # of the source's frames, from 0
    at: float  # the clock's seconds


@dataclass(frozen=True)
class LiveResult:
    rgb: np.ndarray  # restored
    blurred: np.ndarray
    index: int  # of the source's frames: a step of more than 1 tells how many were dropped
    captured_at: float  # the clock's seconds
    latency: float  # seconds from capture to restored


@dataclass
class LiveStats:
    captured: int = 0
    processed: int = 0
    dropped: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def latency(self, percentile: float) -> float:
        """Seconds; nan before the first frame."""
        return float(np.percentile(self.latencies, percentile)) if self.latencies else float("nan")


class Slot:
    """Room for one frame between two threads: a newer one takes the place of one that was not taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Captured | None = None
        self._ended = False
        self.offered = self.dropped = 0

    def put(self, frame: Captured) -> None:
        with self._changed:
            self.offered += 1
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def end(self) -> None:
        """No more frames will come; the one in the slot can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self, timeout: float) -> Captured | None:
        """The newest frame; None when there is none within ``timeout`` seconds or there will be none (``ended``)."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ended, timeout)
            frame, self._frame = self._frame, None
            return frame

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended and self._frame is None


def live(
    source: Iterable[np.ndarray],
    model: nn.Module | Callable[[np.ndarray], np.ndarray],
    stats: LiveStats | None = None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[LiveResult]:
    """Restore the newest frame of ``source`` again and again, until it ends or ``stop()`` is true.

    ``source``: ``(H, W, 3)`` RGB frames, read in a thread of its own; its last frame is always restored. ``model``: a
    generator, or any function from frame to frame. ``stats`` is filled in as the loop runs; in the end
    ``captured == processed + dropped``. What the source raises is raised here, after the last frame.
    """
    stats = stats if stats is not None else LiveStats()
    work = (lambda rgb: restore(model, rgb)) if isinstance(model, nn.Module) else model
    slot, quit_now, errors = Slot(), threading.Event(), []

    def capture() -> None:
        try:
            for index, rgb in enumerate(source):
                if quit_now.is_set():
                    break
                slot.put(Captured(rgb, index, clock()))
        except BaseException as e:
            errors.append(e)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            slot.end()

    # A daemon: it may be waiting in a read that never returns when the loop is told to stop.
    threading.Thread(target=capture, daemon=True).start()
    try:
        while not stop() and not slot.ended:
            frame = slot.take(LOOK)
            if frame is None:
                continue
            rgb = work(frame.rgb)
            latency = clock() - frame.at
            stats.processed += 1
            stats.latencies.append(latency)
            stats.captured, stats.dropped = slot.offered, slot.dropped
            yield LiveResult(rgb, frame.rgb, frame.index, frame.at, latency)
        if errors:
            raise errors[0]
    finally:
        quit_now.set()
        slot.take(0)  # stopped before it was restored: dropped
        stats.captured, stats.dropped = slot.offered, slot.offered - stats.processed
