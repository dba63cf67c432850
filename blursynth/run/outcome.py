"""What became of a task, and what engines share: small things that travel between processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blursynth.common.errors import UserError
from blursynth.run.plan import ShardTask

TRIES = 3  # a task that takes its worker down this often is left out


@dataclass
class Outcome:
    """What became of one task; small, so that it travels."""

    shard: str
    status: str = "done"  # done, failed (may work when tried again), killed (took its worker down), stop (the run must end)
    reason: str = ""
    samples: int = 0
    bytes: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)  # samples that failed though their frames were fine
    seconds: float = 0.0
    clip_seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    worker: str = ""
    tries: int = 1


Fn = Callable[[ShardTask], Outcome]


class EngineError(UserError):
    """An engine that cannot run at all, or was lost; the message says what to do."""


def guarded(fn: Fn, task: ShardTask) -> Outcome:
    """``fn(task)``, where an exception is an outcome too: one task must not end a run."""
    try:
        return fn(task)
    except Exception as e:
        return Outcome(task.shard, "failed", f"{type(e).__name__}: {e}")


def fill_outcome(outcome: Outcome, side: dict[str, Any]) -> Outcome:
    outcome.samples, outcome.bytes = side["samples"], side["bytes"]
    outcome.rejects, outcome.errors = dict(side["counts"]["rejected"]), list(side.get("errors", []))
    return outcome
