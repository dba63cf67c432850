"""Restore a video: decode, network, smoothing and encoding run beside each other, with a few frames between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

from deblur_train.media.codec import Encoding
from deblur_train.media.video_in import Shot, VideoReader
from deblur_train.media.video_out import place_for, write_video
from deblur_train.prediction.smooth import Smoother

Restore = Callable[[np.ndarray], np.ndarray]
Item = Shot | av.Packet
T = TypeVar("T")


@dataclass(frozen=True)
class VideoResult:
    written: Path
    frames: int
    damage: str  # what of the input could not be read, in words; empty: nothing
    notes: list[str]


def restore_video(
    source: Path,
    target: Path,
    restore: Restore,
    temporal: int = 1,
    side_by_side: bool = False,
    encoding: Encoding | None = None,
    progress: Callable[[int], None] | None = None,
    taken: Collection[Path] = (),
) -> VideoResult:
    """Restore ``source`` into ``target`` (another suffix where its container cannot hold the streams, but never one of the
    files ``taken``): atomic.

    Frame times, size, colour tags and the other streams stay as they are; rotated frames come out upright. ``temporal``:
    frames to smooth over, odd, 1 for none. ``progress(expected)`` is called after each frame; what it raises ends the
    work. Raises VideoError, with nothing written.
    """
    encoding = encoding or Encoding()
    with VideoReader(source) as reader, ExitStack() as stages:

        def beside(items: Iterable[Item]) -> Iterator[Item]:
            # Closed in reverse order and before the reader: no thread decodes from a file that is closed.
            return stages.enter_context(closing(ahead(items)))

        written, copied, notes = place_for(target, reader, taken, encoding.codec)
        shown = beside(_restored(beside(reader), restore, side_by_side))
        shown = beside(_smoothed(shown, temporal)) if temporal > 1 else _smoothed(shown, 1)
        frames, more = write_video(
            written, _counted(shown, progress, reader.expected), reader, copied, encoding
        )
        return VideoResult(written, frames, _damage(reader), [f"{source}: {n}" for n in notes + more])


def ahead(items: Iterable[T], depth: int = 3) -> Generator[T]:
    """``items``, computed in a thread of their own, at most ``depth`` of them ahead. Order and errors are kept.

    Decoding, the network and encoding all release the interpreter's lock, so stages chained this way overlap. Closing
    the result (leaving a ``for`` loop by an error does) ends the thread, and closes ``items`` where that can be closed.
    """
    source, end = iter(items), object()
    waiting: deque[Future[T | object]] = deque()
    with ThreadPoolExecutor(1) as worker:  # one thread: the calls run one by one, in order
        try:
            waiting.extend(worker.submit(next, source, end) for _ in range(depth))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(worker.submit(next, source, end))
                yield item  # type: ignore[misc]  # all but the end is a T
        finally:
            worker.shutdown(cancel_futures=True)
            close = getattr(items, "close", None)
            if close is not None:
                close()


def _damage(reader: VideoReader) -> str:
    parts = []
    if reader.damaged:
        parts.append(f"{reader.damaged} damaged packets")
    if reader.missing:
        parts.append(f"the last {reader.missing} of {reader.indexed} frames are missing")
    return f"{reader.name}: {', '.join(parts)}; the rest is restored" if parts else ""


@dataclass(frozen=True)
class _Pair(Shot):
    blurred: np.ndarray | None = None  # for side by side: smoothing must not touch it


def _restored(items: Iterable[Item], restore: Restore, side_by_side: bool) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Shot):
            item = _Pair(restore(item.rgb), item.pts, item.duration, item.rgb if side_by_side else None)
        yield item


def _smoothed(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Shots smoothed over ``count`` frames; packets pass at once (the muxer interleaves them again)."""
    smoother = Smoother(count // 2, count // 2)
    waiting: deque[_Pair] = deque()

    def done(frames: list[np.ndarray]) -> Iterator[Item]:
        for rgb in frames:
            shot = waiting.popleft()
            if shot.blurred is not None:
                rgb = np.hstack([shot.blurred, rgb])
            yield replace(shot, rgb=rgb, blurred=None)

    for item in items:
        if isinstance(item, _Pair):
            waiting.append(item)
            yield from done(smoother.push(item.rgb) if count > 1 else [item.rgb])
        else:
            yield item
    yield from done(smoother.flush())


def _counted(items: Iterable[Item], progress: Callable[[int], None] | None, expected: int) -> Iterator[Item]:
    for item in items:
        yield item
        if progress is not None and isinstance(item, Shot):
            progress(expected)
