"""A live frame loop: the newest frame is restored, older ones are dropped, so that latency stays at a frame's work.

A capture thread reads the source as fast as it gives frames and keeps the last one in a queue of one; the loop
takes it when the network is free. Nothing queues: if the network takes 300 ms and frames come every 40 ms, each restored frame is
at most 340 ms old when it is out, for as long as the loop runs.

    for result in live(camera(0), load_generator("best.safetensors")):
        show(result.rgb)
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from torch import nn

from blursynth.common.progress import show_line
from blursynth.common.stop import stop_asked
from blursynth.common.text import counted
from deblur_train.inference.restorer import Restorer
from deblur_train.inference.tiles import restore
from deblur_train.prediction.live_sink import open_sink
from deblur_train.prediction.live_source import open_source
from deblur_train.prediction.predict import Options
from deblur_train.prediction.smooth import Smoother

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
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def dropped(self) -> int:
        """Captured and not restored; while the loop runs, one of them may still be waiting."""
        return self.captured - self.processed

    def latency(self, percentile: float) -> float:
        """Seconds; nan before the first frame."""
        return float(np.percentile(self.latencies, percentile)) if self.latencies else float("nan")


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
    newest: queue.Queue[Captured | None] = queue.Queue(1)  # None: no more frames will come
    quit_now, errors = threading.Event(), []

    def capture() -> None:
        try:
            for index, rgb in enumerate(source):
                if quit_now.is_set():
                    break
                stats.captured = index + 1
                with suppress(
                    queue.Empty
                ):  # room for one: a newer frame takes the place of one that was not taken
                    newest.get_nowait()
                newest.put(Captured(rgb, index, clock()))
        except BaseException as e:
            errors.append(e)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            while not quit_now.is_set():  # the last frame is taken first
                with suppress(queue.Full):
                    newest.put(None, timeout=LOOK)
                    break

    # A daemon: it may be waiting in a read that never returns when the loop is told to stop.
    threading.Thread(target=capture, daemon=True).start()
    try:
        while not stop():
            try:
                frame = newest.get(timeout=LOOK)
            except queue.Empty:
                continue
            if frame is None:
                break
            rgb = work(frame.rgb)
            latency = clock() - frame.at
            stats.processed += 1
            stats.latencies.append(latency)
            yield LiveResult(rgb, frame.rgb, frame.index, frame.at, latency)
        if errors:
            raise errors[0]
    finally:
        quit_now.set()
        with suppress(queue.Empty):  # stopped before it was restored: dropped
            newest.get_nowait()


def run_live(
    source: str,
    restorer: Restorer,
    out: str,
    options: Options,
    size: tuple[int, int] | None = None,
    console: Console | None = None,
) -> str:
    """Run until the source ends, the window is closed, the pipe breaks, or Ctrl-C: a summary in one line.

    ``out``: ``window``, ``-`` (raw RGB frames on standard output) or a video file. Raises ImageError.
    """
    console = console or Console(stderr=True)  # the frames may go to standard output
    frames = open_source(source, size)
    # Only what is past can be smoothed over: waiting for the next frame would be latency.
    smoother = Smoother(options.temporal - 1, 0) if options.temporal > 1 else None
    stats, said = LiveStats(), 0.0
    with stop_asked() as asked, open_sink(out, options.encoding) as show:
        for result in live(frames, restorer, stats, asked):
            if said == 0.0:
                said = result.captured_at
                h, w = result.rgb.shape[:2]
                wide = w * 2 if options.side_by_side else w
                show_line(console, f"live: {w}x{h} from {source} to {out} as {wide}x{h}; Ctrl-C ends it")
            if not show(_shown(result, smoother, options.side_by_side), result.captured_at):
                break
            if result.captured_at - said > 5:
                said = result.captured_at
                show_line(console, words(stats))
    return words(stats)


def words(stats: LiveStats) -> str:
    if not stats.processed:
        return f"no frame restored of {stats.captured}"
    return (
        f"latency median {stats.latency(50) * 1e3:.0f} ms, p95 {stats.latency(95) * 1e3:.0f} ms; "
        f"{counted(stats.processed, 'frame')} restored, {stats.dropped} dropped of {stats.captured}"
    )


def _shown(result: LiveResult, smoother: Smoother | None, side_by_side: bool) -> np.ndarray:
    rgb = smoother.push(result.rgb)[0] if smoother else result.rgb
    return np.hstack([result.blurred, rgb]) if side_by_side else rgb
