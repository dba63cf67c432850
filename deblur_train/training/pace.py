"""When a run logs, validates and saves; how fast it goes; and the means of its losses between two log lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from deblur_train import distributed
from deblur_train.config import TrainConfig

WARM, MEASURED = 5, 20  # steps of a start: slow ones, and those after which the rate is told


class Pace:
    """``samples_per_s`` is the rate of training alone: validation and saving stop the watch."""

    def __init__(self, config: TrainConfig, step: int, ranks: int) -> None:
        self.run, self.steps, self.ranks = config.run, config.steps, ranks
        self.samples_a_step = config.optim.accumulate * config.batch_size * ranks
        self.since, self.waited, self.marked = step, 0.0, time.perf_counter()
        self.begun, self.other, self.clock = step, 0.0, 0.0

    def due(self, step: int, stopping: bool) -> tuple[bool, bool, bool]:
        """Whether to log, to validate and to save after step number ``step``; the last step does all three. A save logs
        too: what a resumed run then logs is the mean of all steps since the line before, as a line always is."""
        last = step == self.steps
        log, val, save = (
            step % n == 0 or last for n in (self.run.log_every, self.run.val_every, self.run.save_every)
        )
        save = save or stopping
        return log or save, val, save

    def asks(self, step: int) -> bool:
        """Whether the ranks agree after this step on going on: asking costs a message, so several ask less often."""
        return self.ranks == 1 or step % 10 == 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here is waiting for data."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not training."""
        began = time.perf_counter()
        yield
        self.marked += time.perf_counter() - began
        self.other += time.perf_counter() - began

    def measured(self, step: int, device: torch.device) -> float | None:
        """Seconds a step, told once: at step 20 of this start, over all but the first five, which are slower. None at
        any other step, and where few steps are left to speak of."""
        done = step - self.begun
        if done not in (WARM, MEASURED) or self.steps - step < MEASURED:
            return None
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # steps are only queued before
        before, self.clock = self.clock, time.perf_counter() - self.other
        return (self.clock - before) / (MEASURED - WARM) if done == MEASURED else None

    def lap(self, step: int) -> dict[str, float]:
        """The rate since the last lap, over all ranks, and the share of it that went by waiting for data."""
        now = time.perf_counter()
        took = now - self.marked
        facts = {
            "samples_per_s": (step - self.since) * self.samples_a_step / took,
            "wait_share": self.waited / took,
        }
        self.since, self.waited, self.marked = step, 0.0, now
        return facts


class Means:
    """Means of the values of several steps: one step's loss says mostly which crops it met.

    The sums stay on the device; reading them makes a GPU wait for its steps, so that is done where something depends
    on it.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        self.sums = {k: self.sums[k] + v for k, v in values.items()} if self.sums else values
        self.count += 1

    def finite(self) -> bool:
        """Whether every loss and gradient since the last ``take`` was finite (a sum keeps what was not), on all ranks."""
        told = torch.stack([self.sums[k].detach().float() for k in ("loss_g", "grad_norm")])
        return not distributed.any_rank(not bool(torch.isfinite(told).all()), told.device)

    def take(self) -> dict[str, float]:
        """The means over the steps and the ranks, and start anew."""
        stacked = torch.stack([v.detach().float() / self.count for v in self.sums.values()])
        means = dict(zip(self.sums, distributed.all_reduce_mean(stacked).tolist(), strict=True))
        self.sums, self.count = {}, 0
        return means
