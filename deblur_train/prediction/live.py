"""A live frame loop: the newest frame is restored, older ones are dropped, so that latency stays at a frame's work.

A capture thread reads the source as fast as it gives frames and keeps the last one in a queue of one; the loop
takes it when the network is free. Nothing queues: if the network takes 300 ms and frames come every 40 ms, each restored frame is
at most 340 ms old when it is out, for as long as the loop runs.

    for result in live(camera(0), load_generator("best.safetensors")):
        show(result.rgb)
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from rich.console import Console
from torch import nn

from blursynth.common.atomic import part_beside
from blursynth.common.progress import show_line
from blursynth.common.stop import stop_asked
from blursynth.common.text import counted
from deblur_train.inference.restorer import Restorer
from deblur_train.inference.tiles import restore
from deblur_train.media.pictures import ImageError
from deblur_train.media.video_in import Colour, Shot, VideoFacts
from deblur_train.media.video_out import CONTAINERS, Encoding, VideoWriter, choose_codec
from deblur_train.prediction.live_source import open_source
from deblur_train.prediction.predict import Options
from deblur_train.prediction.smooth import Smoother

KEPT = 10_000  # latencies that statistics are taken from: the last ones, so that a loop may run for ever
LOOK = 0.2  # seconds between looks at ``stop`` while the source gives nothing
TICKS = 1000  # time stamps of a live recording: milliseconds since its first frame


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


class Sink(Protocol):
    """Takes frames; false: it wants no more."""

    def __call__(self, rgb: np.ndarray, seconds: float) -> bool: ...


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
    with stop_asked() as asked, _open(out, options.encoding) as show:
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


@contextmanager
def _open(out: str, encoding: Encoding) -> Iterator[Sink]:
    if out == "window":
        yield from _window()
    elif out == "-":
        yield from _pipe(sys.stdout.buffer)
    else:
        path = Path(out)
        if path.suffix.lower() not in CONTAINERS:
            raise ImageError(
                f"{out}: --live writes {', '.join(CONTAINERS)} files, to a window, or to - (a pipe)"
            )
        choose_codec(encoding.codec)
        with part_beside(path) as part:
            recording = _Recording(part, path.suffix.lower(), encoding)
            yield recording
            recording.close(path)


def _window() -> Iterator[Sink]:
    title = "deblur-train: q ends"
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise ImageError(
            "--out window: this OpenCV is a headless build and has no windows; install opencv-contrib-python in its "
            "place, or give --out FILE.mp4, or --out - and a player (ffplay -f rawvideo -pixel_format rgb24 ...)"
        ) from None

    def show(rgb: np.ndarray, seconds: float) -> bool:
        bytes_ = rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)
        cv2.imshow(title, cv2.cvtColor(bytes_, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    try:
        yield show
    finally:
        cv2.destroyWindow(title)


def _pipe(stream: Any) -> Iterator[Sink]:
    def show(rgb: np.ndarray, seconds: float) -> bool:
        try:
            stream.write(np.ascontiguousarray(rgb if rgb.dtype == np.uint8 else rgb >> 8, np.uint8).data)
            stream.flush()
        except BrokenPipeError:  # the reader has seen enough; Python must not complain again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return False
        return True

    yield show


class _Recording:
    """A video file of unevenly spaced frames: each stands at the time it was captured."""

    def __init__(self, part: Path, suffix: str, encoding: Encoding) -> None:
        self.part, self.suffix, self.encoding = part, suffix, encoding
        self.writer: VideoWriter | None = None
        self.began, self.last = 0.0, -1

    def __call__(self, rgb: np.ndarray, seconds: float) -> bool:
        if self.writer is None:
            self.began = seconds
            facts = VideoFacts(Fraction(1, TICKS), Fraction(25), Colour(), Fraction(1), 0)
            self.writer = VideoWriter(self.part, self.suffix, facts, rgb, self.encoding)
        self.last = max(round((seconds - self.began) * TICKS), self.last + 1)
        self.writer.write(Shot(rgb, self.last, 0))
        return True

    def close(self, path: Path) -> None:
        if self.writer is None:
            raise ImageError(f"{path}: not written: the source gave no frame")
        self.writer.close()
