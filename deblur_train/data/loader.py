"""The stream of crops in decoding processes, and how these end."""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Generator, Iterator

import cv2
import torch
from torch.utils.data import DataLoader

from deblur_train.data.index import DataError
from deblur_train.data.stream import Batch, CropStream


def usable_workers(wanted: int, lanes: int) -> int:
    """The largest number of workers, at most ``wanted``, that divides the lanes evenly (0: decode in this process)."""
    return max((n for n in range(1, lanes + 1) if lanes % n == 0 and n <= wanted), default=0)


def _start_worker(worker: int) -> None:
    # Ctrl-C, and the SIGTERM of a batch system, reach the whole process group; the main process saves and then ends the
    # workers itself (see _decoded), and a worker whose main process is gone ends on its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if cv2.getNumThreads() != 1:  # a spawned worker; a forked one has inherited the setting (see _decoded)
        cv2.setNumThreads(1)
    torch.set_num_threads(1)


def load_batches(stream: CropStream, workers: int, pin_memory: bool = False) -> Generator[Batch, None, None]:
    """Run the stream in ``workers`` processes (0: in this one); the batches are the same and in the same order.

    Raises DataError when nothing (more) can be decoded or a worker died.
    """
    batches = _decoded(stream, usable_workers(workers, stream.options.lanes), pin_memory)
    # A caller need not use the stream up or close it. Left to the interpreter's exit, the workers would get a SIGTERM,
    # which they ignore, and be waited for without end.
    atexit.register(_close, weakref.ref(batches))
    return batches


def _close(weak: weakref.ref[Generator[Batch, None, None]]) -> None:
    batches = weak()
    if batches is not None:
        batches.close()


def _decoded(stream: CropStream, workers: int, pin_memory: bool) -> Generator[Batch, None, None]:
    source: Iterator[Batch] = iter(stream)
    if workers:
        # Before the fork, in the parent: a child that inherits OpenCV's thread pool without its threads hangs in the
        # first call that resizes the pool.
        cv2.setNumThreads(1)
        loader: DataLoader[Batch] = DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=4,
            worker_init_fn=_start_worker,
        )
        source = iter(loader)
    try:
        while True:
            batch = next(source)
            if batch["error"]:
                raise DataError(batch["error"])
            yield batch
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
        raise DataError(
            "a decoding process was killed (out of memory?); lower --workers or data.frames_in_flight and --resume"
        ) from None
    finally:
        if workers:  # by name: a traceback may keep the iterator, and so its workers, alive
            source._shutdown_workers()  # type: ignore[attr-defined]
