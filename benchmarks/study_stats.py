"""The figures of study.py: the file of finished runs, paired differences and their intervals over pictures and seeds."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np


@dataclass(frozen=True)
class Run:
    """One finished training, measured on every test set: a line of the file of results."""

    arm: str
    seed: int
    settings: str  # hash of all that the run depends on, but for the seed and the code
    tests: str  # hash of the test pictures
    commit: str
    cpu_s: float  # of the training's processes
    blurred: dict[str, float]  # mean PSNR of the blurred input by set, dB
    gains: dict[
        str, list[float]
    ]  # PSNR above the blurred input's by set, dB, one for each pair in the set's order
    sharp: float  # mean PSNR of sharp test pictures from themselves, dB


def read_runs(path: Path) -> list[Run]:
    """Lines of the file; a last line that was not written whole is passed over with a word."""
    if not path.exists():
        return []
    runs = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            runs.append(Run(**json.loads(line)))
        except (ValueError, TypeError) as e:
            if i < len(lines):
                raise click.ClickException(f"{path}: line {i} is no run of this study: {e}") from None
            click.echo(f"{path}: line {i} was not written whole; its run is made again", err=True)
    return runs


def append_run(path: Path, run: Run) -> None:
    """One more line, on disk when this returns; half a line that a kill left is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        held = file.read()
        file.truncate(held.rfind(b"\n") + 1)
        file.write(json.dumps(asdict(run)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def of_settings(runs: Iterable[Run], settings: dict[str, str]) -> dict[str, dict[int, Run]]:
    """Runs by arm and seed whose settings are today's; the first one of a seed counts.

    Raises ClickException where they were measured on different pictures.
    """
    found: dict[str, dict[int, Run]] = {arm: {} for arm in settings}
    for run in runs:
        if settings.get(run.arm) == run.settings:
            found[run.arm].setdefault(run.seed, run)
    if len({run.tests for seeds in found.values() for run in seeds.values()}) > 1:
        raise click.ClickException(
            "runs of the same settings were measured on different test pictures: a picture package has changed; "
            "remove the lines of one of them"
        )
    return found


def differences(
    one: dict[int, Run], other: dict[int, Run], sets: Sequence[str]
) -> tuple[list[int], list[np.ndarray]]:
    """Seeds that both arms have, and for each set the first arm's gain less the other's, dB (seeds, pairs)."""
    seeds = sorted(one.keys() & other.keys())
    return seeds, [np.array([np.subtract(one[s].gains[t], other[s].gains[t]) for s in seeds]) for t in sets]


def interval(
    sets: Sequence[np.ndarray], draws: int = 10000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of the sets' means, and the ends of its bootstrap interval over seeds and pictures.

    sets: (seeds, pictures) each, the same seeds in all. Seeds and, within each set, pictures are drawn anew together
    (the crossed bootstrap of Owen 2007), n - 1 of n, which makes the variance of a mean of few unbiased (Rao and Wu
    1988). With one seed only pictures are drawn: the interval then says nothing about other seeds.
    """
    rng = np.random.default_rng(seed)
    count = len(sets[0])
    seeds = rng.integers(count, size=(draws, max(count - 1, 1)))
    total = np.zeros(draws)
    for values in sets:
        n = values.shape[1]
        items = rng.integers(n, size=(draws, max(n - 1, 1)))
        total += values[seeds[:, :, None], items[:, None, :]].mean(axis=(1, 2))
    tail = 50 * (1 - level)
    low, high = np.percentile(total / len(sets), [tail, 100 - tail])
    return float(np.mean([v.mean() for v in sets])), float(low), float(high)
