"""A run's folder: what is in it, how a run begins, is saved, and goes on."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from blursynth import __version__
from blursynth.common.atomic import naming, open_own, part_of, write_atomic
from blursynth.common.errors import UserError
from blursynth.common.lock import flock
from blursynth.common.text import counted
from deblur_train import distributed
from deblur_train.config import CONFIG_MARK, TrainConfig, dump_config
from deblur_train.models.base import Generator
from deblur_train.models.checkpoint import (
    CheckpointError,
    backbone_of,
    load_weights,
    read_state,
    read_torch,
    save_generator,
    save_run,
    shipped_checkpoint,
)
from deblur_train.models.nafnet import NAFNet, shape_of
from deblur_train.training.step import Learner

RUN_FORMAT = 1
FILES = (
    "config.toml",
    "log.jsonl",
    "last.pt",
    "last.safetensors",
    "best.safetensors",
    "val.png",
    "curves.png",
)
"""What a run writes into its folder."""


class TrainError(UserError):
    """Training cannot start or go on; the message says what is wrong, what is saved and what to do."""


@dataclass
class Progress:
    """How far a run is: everything besides the learner that its future depends on."""

    step: int = 0  # steps done
    batch: int = 0  # number of the next batch
    best: float | None = None  # best validation PSNR so far, dB
    measure: str | None = None  # what that was measured on (`validate.measure_of`); None: not known
    saved: int = field(default=0, compare=False)  # step of the last saved state

    def measured_on(self, measure: str) -> str:
        """From here on PSNR is measured on this, or on nothing: a best one of other frames does not count. Returns a warning or ""."""
        other = self.best is not None and (not measure or self.measure not in (None, measure))
        self.best, self.measure = None if other else self.best, measure
        return "warning: validation is not that of before, so the best PSNR is sought anew" if other else ""


def refuse_to_overwrite(folder: Path, resume: bool) -> None:
    """A folder that holds a run is only touched with ``--resume``; weights that one left, with no state to go on from, and
    files that are no run's never. Raises TrainError."""
    state, config = (folder / "last.pt").exists(), folder / "config.toml"
    if state and not resume:
        raise TrainError(
            f"{folder}: holds a run already; add --resume to go on with it, or choose another --out"
        )
    if config.is_file() and not config.read_bytes().startswith(CONFIG_MARK.encode()):
        raise TrainError(f"{config}: is no run's; choose another --out, or move it away")
    for name in () if state else ("best.safetensors", "last.safetensors"):
        # A run that was killed before it first saved its state may have left its best weights: they are made again.
        killed_early = resume and config.is_file() and name.startswith("best")
        if (folder / name).exists() and not killed_early:
            gone = "; its last.pt, which --resume goes on from, is gone" if resume else ""
            raise TrainError(
                f"{folder}: holds {name} of an earlier run, which this one would write over{gone}; choose another --out, or "
                "move it away"
            )
    for name in () if state or config.is_file() else ("log.jsonl", "val.png", "curves.png"):
        if (folder / name).exists():
            raise TrainError(f"{folder / name}: is no run's; choose another --out, or move it away")
    if resume and not folder.exists():
        raise TrainError(f"{folder}: nothing to resume here; check --out, or start without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise TrainError(f"{folder}: cannot be made: {e.strerror}") from None


_held: set[int] = set()  # descriptors of folders that this process works in


def _leave_to_parent() -> None:
    """A decoding worker outlives a killed run by a moment: it must not hold the folder against the next one."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two runs never write one folder at once: the second raises TrainError. The lock is the folder's own."""
    held = (
        os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    )  # Windows opens no folders, and has no locks
    try:
        if held is not None and not flock(held, exclusive=True, wait=False):
            raise TrainError(f"{folder}: another fit is at work there; wait for it, or choose another --out")
        if held is not None:
            _held.add(held)
            _remove_halves(folder)
        yield
    finally:
        if held is not None:
            _held.discard(held)
            os.close(held)


def _remove_halves(folder: Path) -> None:
    """What a killed run had half written: each save that is cut short would leave another, as large as the state."""
    for path in folder.iterdir():
        if part_of(path.name) in FILES and path.is_file():
            path.unlink()


def load_initial(generator: Generator, path: str) -> None:
    """Start from somebody's generator, which must be of the same kind; ``shipped``: the one in the package."""
    path = str(shipped_checkpoint()) if path == "shipped" else path
    state, _ = read_state(path)
    kind = backbone_of(state)
    if kind != generator.backbone_name:
        raise CheckpointError(
            f"{path}: holds {kind or 'no generator'}, but --backbone is {generator.backbone_name}"
        )
    shape = shape_of(state)
    if isinstance(generator, NAFNet) and shape is not None and shape != generator.shape:
        raise CheckpointError(
            f"{path}: another shape: width {shape.width}, enc {list(shape.enc)}, middle {shape.middle}, "
            f"dec {list(shape.dec)}, unshuffle {shape.unshuffle}; set these under [model] in the config"
        )
    load_weights(generator, state, path)


def save_state(
    folder: Path, learner: Learner, config: TrainConfig, progress: Progress, validating: bool
) -> None:
    """Write the whole state, the generator to use, and (without validation) the same as the best one. Rank 0 only."""
    progress.saved = progress.step
    if distributed.rank() != 0:
        return
    cuda = learner.device.type == "cuda"
    state = {
        "format": RUN_FORMAT,
        "version": __version__,
        "step": progress.step,
        "batch": progress.batch,
        "best": progress.best,
        "measure": progress.measure,
        "ranks": distributed.world_size(),
        "config": dump_config(config),
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if cuda else [],
        **learner.state_dict(),
    }
    save_run(folder / "last.pt", state)
    save_weights(folder / "last.safetensors", learner, config, progress)
    if not validating:
        save_weights(folder / "best.safetensors", learner, config, progress)


def save_weights(path: Path, learner: Learner, config: TrainConfig, progress: Progress) -> None:
    """The generator to use as safetensors, with what is known about it."""
    facts = {"step": str(progress.step), "crop": str(config.crop), "norm_stats": config.run.val_norm_stats}
    if path.stem == "best" and progress.best is not None:
        facts["val_psnr"] = f"{progress.best:.4f}"
    save_generator(path, config.backbone, learner.weights(), facts)


def restore_run(path: Path, learner: Learner) -> Progress:
    """Load a whole state into the learner and torch's RNG; returns how far it is. Raises CheckpointError."""
    state = read_torch(path)
    if not isinstance(state, dict) or state.get("format") != RUN_FORMAT:
        raise CheckpointError(f"{path}: not a run of deblur-train (or of another version)")
    missing = {"config", "ranks", "rng", "rng_cuda", "step", "batch", "best"} - state.keys()
    try:
        old = tomllib.loads(state.get("config", ""))
    except (ValueError, TypeError, AttributeError, RecursionError):
        missing.add("config")
    if missing:
        raise CheckpointError(f"{path}: a damaged run: {', '.join(sorted(missing))} cannot be read from it")
    config, model = learner.config, old.get("model") or {}
    kept: list[tuple[str, Any, Any]] = [("backbone", old.get("backbone"), config.backbone)]
    if config.backbone == "nafnet":
        kept += [(f"model.{key}", model.get(key, now), now) for key, now in config.model.shape.items()]
    kept.append(("batch_size", old.get("batch_size"), config.batch_size))
    for key, before, now in kept:
        now = list(now) if isinstance(now, tuple) else now
        if before != now:
            raise CheckpointError(
                f"{path}: the run has {key} = {before!r}, not {now!r}; leave that option out to resume it"
            )
    if state["ranks"] != distributed.world_size():
        raise CheckpointError(
            f"{path}: the run has {counted(state['ranks'], 'rank')}, not {distributed.world_size()}; resume it with as many"
        )
    try:
        learner.load_state_dict(state)
        torch.set_rng_state(state["rng"])
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as e:
        raise CheckpointError(
            f"{path}: does not fit the config: {(str(e) or repr(e)).splitlines()[0]}"
        ) from None
    if state["rng_cuda"] and learner.device.type == "cuda":
        torch.cuda.set_rng_state_all(state["rng_cuda"])
    return Progress(state["step"], state["batch"], state["best"], state.get("measure"), saved=state["step"])


class Log:
    """``log.jsonl``: one object a line, flushed line by line."""

    def __init__(self, path: Path, writing: bool) -> None:
        self.path, self.writing = path, writing

    def write(self, row: dict[str, Any]) -> None:
        if self.writing:
            with naming(self.path), open_own(self.path) as f:
                f.write(
                    json.dumps({k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in row.items()})
                    + "\n"
                )

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                # An integer may be beyond all floats.
                rows.append(json.loads(line, parse_int=lambda s: int(s) if len(s) < 20 else float(s)))
            except (ValueError, RecursionError):
                continue  # a line cut by a kill
        return [r for r in rows if isinstance(r, dict) and isinstance(r.get("step"), int)]

    def keep_until(self, step: int) -> None:
        """Drop what a killed run wrote after the state it is resumed from."""
        kept = [json.dumps(r) for r in self.rows() if r["step"] <= step]
        if self.writing:
            write_atomic(self.path, "".join(line + "\n" for line in kept).encode())
