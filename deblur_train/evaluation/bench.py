"""Latency and throughput of checkpoints and exported files on this machine, measured in turn so that ratios are fair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from deblur_train.inference.runtimes import Runner
from deblur_train.inference.signature import Size
from deblur_train.models.generator import build_generator
from deblur_train.models.nafnet import shape_from_words

MACS_AT = 256  # pixels a side; the count grows with the area, exactly so for sides that are multiples of 32


@dataclass(frozen=True)
class Row:
    """One file at one size. Times are of ``run`` alone: the file's own input in memory to its output in memory."""

    name: str
    runtime: str
    height: int
    width: int
    median_ms: float
    least_ms: float
    frames_per_s: float
    megapixels_per_s: float
    speedup: float  # median over the rounds of the first file's time by this one's
    gmacs: float | None


@dataclass(frozen=True)
class Skipped:
    name: str
    height: int
    width: int
    reason: str


def count(backbone: str, shape: str = "") -> tuple[float, int]:
    """(multiply-accumulates a pixel, parameters that a forward pass uses) of a generator, without running it.

    ``shape``: a NAFNet's, in the words of a file's metadata.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        generator = build_generator(backbone, shape_from_words(shape) if shape else None).eval()
        x = torch.zeros(1, 3, MACS_AT, MACS_AT)
        used: set[int] = set()
        for layer in generator.modules():
            layer.register_forward_pre_hook(
                lambda module, _: used.update(id(p) for p in module.parameters(recurse=False))
            )
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            generator(x)
    parameters = {id(p): p.numel() for p in generator.parameters()}
    return counter.get_total_flops() / 2 / MACS_AT**2, sum(parameters[i] for i in used)


def model_of(runner: Runner) -> tuple[str, str]:
    """Backbone and shape, as :func:`count` takes them; empty where the file does not say."""
    return runner.info.get("backbone", ""), runner.info.get("shape", "")


def time_in_turn(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each call in each round, all calls once a round; a first round, for warming up, is not counted."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, seconds in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            if number:
                seconds.append(time.perf_counter() - began)
    return times


def bench(
    runners: list[tuple[str, Runner]],
    sizes: list[Size],
    rounds: int = 7,
    on_row: Callable[[Row | Skipped], None] = lambda row: None,
) -> list[Row | Skipped]:
    """Every runner at every size it can do, batch 1; those of a fixed size are skipped at the others, with the reason."""
    macs = {known: count(*known)[0] for known in {model_of(r) for _, r in runners} if known[0]}
    rng = np.random.default_rng(0)
    rows: list[Row | Skipped] = []
    for h, w in sizes:
        x = rng.uniform(-1, 1, (1, 3, h, w)).astype(np.float32)
        able = [(n, r) for n, r in runners if r.signature.size in (None, (h, w))]
        for name, r in runners:
            if r.signature.size not in (None, (h, w)):
                only = f"takes {r.signature.size[0]} x {r.signature.size[1]} only" if r.signature.size else ""
                rows.append(Skipped(name, h, w, only))
                on_row(rows[-1])
        natives = [r.signature.native(x) for _, r in able]
        calls = [partial(r.run, v) for (_, r), v in zip(able, natives, strict=True)]
        times = time_in_turn(calls, rounds)
        for (name, r), seconds in zip(able, times, strict=True):
            median = statistics.median(seconds)
            per_pixel = macs.get(model_of(r))
            rows.append(
                Row(
                    name,
                    r.runtime,
                    h,
                    w,
                    median * 1e3,
                    min(seconds) * 1e3,
                    1 / median,
                    h * w / median / 1e6,
                    statistics.median(a / b for a, b in zip(times[0], seconds, strict=True)),
                    None if per_pixel is None else per_pixel * h * w / 1e9,
                )
            )
            on_row(rows[-1])
    return rows


def as_json(rows: list[Row | Skipped]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
