"""Training, from shards to weights: :func:`fit` reads top to bottom."""

from __future__ import annotations

import json
import os
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from . import distributed
from .board import Board
from .checkpoint import (
    CheckpointError,
    backbone_of,
    load_weights,
    read_state,
    read_torch,
    save_generator,
    save_run,
    version,
    write_atomically,
)
from .config import ModelConfig, TrainConfig, dump_config
from .data import CropOptions, CropStream, load_batches, to_device, usable_workers
from .generator import FPNGenerator, build_generator
from .inference import restore
from .metrics import psnr, ssim
from .norm import set_norm_stats
from .plot import curves, save_png
from .pretrained import load_vgg19
from .progress import Meter
from .schedule import backbone_frozen, learning_rate
from .shards import DecodeError, Sample, ShardIndex, ShardReader, index_split, require_samples
from .step import Learner

RUN_FORMAT = 1


class TrainError(RuntimeError):
    """Training cannot start or go on; the message says what is wrong, what is saved and what to do."""


@dataclass(frozen=True)
class FitResult:
    folder: Path
    steps: int
    interrupted: bool
    best_psnr: float | None  # dB, on whole validation frames; None without validation


def fit(config: TrainConfig, resume: bool = False, console: Console | None = None) -> FitResult:
    """Train as ``config`` says into its run folder. Raises DataError, CheckpointError or TrainError, each in one line.

    The run folder holds ``config.toml``, ``log.jsonl``, ``last.pt`` (the whole state), ``last.safetensors``,
    ``best.safetensors`` (by validation PSNR) and, at the end, ``curves.png``.
    """
    console = console or Console()
    folder = config.run_folder
    device = distributed.join(choose_device(config.device))
    chief = distributed.rank() == 0
    say = _speaker(console, chief)
    refuse_to_overwrite(folder, resume)

    # What there is to learn from.
    assert config.shards is not None, "the caller asks for --shards"
    train, val = index_split(config.shards, "train"), index_split(config.shards, "val")
    for line in [*train.report(), *val.report()]:
        say(f"warning: {config.shards}: {line}")
    require_samples(train, config.shards, "train")
    frames = read_validation_frames(val, config.data.val_frames, say) if chief else []

    # What learns.
    torch.manual_seed(config.seed)
    if config.run.deterministic and device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    vgg = load_vgg19(config.perceptual) if config.perceptual != "off" else None
    step, batch_number, best, log = 0, 0, None, Log(folder / "log.jsonl", chief)
    going_on = resume and (folder / "last.pt").exists()
    # A resumed run holds its weights; the files that it started from may be gone.
    learner = Learner(config.model_copy(update={"model": ModelConfig()}) if going_on else config, device, vgg)
    if config.init and not going_on:
        load_initial(learner.generator, config.init)
    if going_on:
        step, batch_number, best = restore_run(folder / "last.pt", learner)
        log.keep_until(step)
    learner.start()
    if chief:
        write_atomically(folder / "config.toml", lambda f: f.write(dump_config(config).encode()))

    # How it is fed.
    options = CropOptions(
        config.batch_size,
        config.crop,
        config.data.crops_per_frame,
        config.data.frames_in_flight,
        config.data.lanes,
        config.data.augment,
        config.data.noise,
    )
    ranks = distributed.world_size()
    stream = CropStream(train, options, config.seed, distributed.rank(), ranks, batch_number)
    workers = usable_workers(_workers(config, device), config.data.lanes)
    batches = load_batches(stream, workers, pin_memory=device.type == "cuda")
    accumulate = config.optim.accumulate

    say(
        f"{config.backbone} on {len(train.samples)} samples in {len(train.paths)} shards, {device}, {ranks} rank(s), {workers} decoding worker(s)"
    )
    say(
        f"perceptual loss: VGG19 from {config.perceptual}"
        if vgg
        else "perceptual loss: off (give VGG19 weights with --perceptual FILE)"
    )
    if not frames:
        why = (
            "val_frames is 0"
            if config.data.val_frames == 0
            else "no val-*.tar shard"
            if not val.paths
            else "no usable val sample"
        )
        say(f"no validation: {why}; best.safetensors will be the last state")
    if step:
        say(f"resumed after step {step}")

    def save(state_of: int) -> None:
        """The whole state after step ``state_of``; never a state that holds a NaN."""
        if not chief:
            return
        state = {
            "format": RUN_FORMAT,
            "version": version(),
            "step": state_of,
            "batch": batch_number,
            "ranks": ranks,
            "best": best,
            "config": dump_config(config),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
            **learner.state_dict(),
        }
        save_run(folder / "last.pt", state)
        facts = {"step": str(state_of), "crop": str(config.crop), "norm_stats": config.run.val_norm_stats}
        save_generator(folder / "last.safetensors", config.backbone, learner.weights(), facts)
        if not frames:
            save_generator(folder / "best.safetensors", config.backbone, learner.weights(), facts)

    finite = torch.ones((), dtype=torch.bool, device=device)
    saved = step
    waited, marked, since = 0.0, time.perf_counter(), step
    sums: dict[
        str, torch.Tensor
    ] = {}  # of the values since the last log line: one step's loss is mostly its crops
    interrupted = False
    board = Board(folder if config.run.tensorboard and chief else None)
    with stop_signals() as stop, Meter(console, "training", config.steps, step, quiet=not chief) as meter:
        while step < config.steps:
            before = time.perf_counter()
            taken = [next(batches) for _ in range(accumulate)]
            batch_number += accumulate
            layout = config.run.channels_last
            pairs = [
                (to_device(b["blur"], device, layout), to_device(b["sharp"], device, layout)) for b in taken
            ]
            waited += time.perf_counter() - before
            for fault in [f for b in taken for f in b["faults"]]:
                meter.say(f"warning: passed over {fault}")

            lr = learning_rate(config.schedule, step, config.steps)
            values = learner.step(pairs, lr, backbone_frozen(config.schedule, step, config.steps))
            step += 1
            sums = {k: sums[k] + v for k, v in values.items()} if sums else values
            finite &= torch.isfinite(values["loss_g"]) & torch.isfinite(values["grad_norm"])
            note = None

            last = step == config.steps
            if step % config.run.log_every == 0 or last:
                numbers = mean_over_ranks({k: v / (step - since) for k, v in sums.items()})
                now = time.perf_counter()
                speed = (step - since) * accumulate * config.batch_size * ranks / (now - marked)
                row = {
                    "step": step,
                    **numbers,
                    "lr": lr,
                    "samples_per_s": round(speed, 3),
                    "wait_share": round(waited / (now - marked), 4),
                }
                log.write(row)
                board.numbers(step, numbers | {"lr": lr})
                waited, marked, since, sums = 0.0, now, step, {}
                note = f"loss {numbers['loss_g']:.4g}"
            # On a GPU reading the flag waits for the step to end, so it is read only where something depends on it.
            saving = step % config.run.save_every == 0 or last
            if device.type == "cpu" or note or saving:
                check_finite(finite, step, saved, folder)

            if frames and (step % config.run.val_every == 0 or last):
                scores, pictures = validate(learner, frames)
                log.write({"step": step, **scores})
                board.numbers(step, scores)
                board.pictures(step, pictures)
                meter.say(
                    f"step {step}: PSNR {scores['val_psnr']:.2f} dB ({scores['val_psnr'] - scores['val_psnr_blurred']:+.2f} "
                    f"against the blurred input), SSIM {scores['val_ssim']:.4f}"
                )
                if best is None or scores["val_psnr"] > best:
                    best = scores["val_psnr"]
                    facts = {
                        "step": str(step),
                        "crop": str(config.crop),
                        "norm_stats": config.run.val_norm_stats,
                        "val_psnr": f"{best:.4f}",
                    }
                    save_generator(folder / "best.safetensors", config.backbone, learner.weights(), facts)
            interrupted = (
                distributed.any_rank(stop(), device) if ranks == 1 or step % 10 == 0 or last else False
            )
            if saving or interrupted:
                check_finite(finite, step, saved, folder)
                save(step)
                saved = step
            if saving or interrupted or step % config.run.val_every == 0:
                distributed.barrier()  # the others wait while rank 0 validates and saves
            meter.advance(note)
            if interrupted:
                break
    board.close()
    batches.close()  # ends the decoding workers

    if chief:
        save_png(folder / "curves.png", curves(log.rows()))
    distributed.leave()
    return FitResult(folder, step, interrupted and step < config.steps, best)


def choose_device(wanted: str) -> str:
    """``auto`` is CUDA where torch sees it. Raises TrainError for a device that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainError(
            "--device cuda: this torch sees no CUDA device; use --device cpu or install a CUDA build of torch"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _workers(config: TrainConfig, device: torch.device) -> int:
    if config.workers is not None:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    # On a CPU the step itself needs the cores; one decoder feeds it easily.
    return 1 if device.type == "cpu" else max(1, min(8, cores // distributed.world_size() - 1))


def _speaker(console: Console, chief: bool) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False) if chief else None


def refuse_to_overwrite(folder: Path, resume: bool) -> None:
    """A folder that holds a run is only touched with ``--resume``."""
    if (folder / "last.pt").exists() and not resume:
        raise TrainError(
            f"{folder}: holds a run already; add --resume to go on with it, or choose another --out"
        )
    if resume and not folder.exists():
        raise TrainError(f"{folder}: nothing to resume here; check --out, or start without --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise TrainError(f"{folder}: cannot be made: {e.strerror}") from None


def load_initial(generator: FPNGenerator, path: str) -> None:
    """Start from somebody's generator, which must be of the same kind."""
    state, _ = read_state(path)
    kind = backbone_of(state)
    if kind != generator.backbone_name:
        raise CheckpointError(
            f"{path}: holds {kind or 'no DeblurGAN-v2 generator'}, but --backbone is {generator.backbone_name}"
        )
    load_weights(generator, state, path)


def restore_run(path: Path, learner: Learner) -> tuple[int, int, float | None]:
    """Load a whole state; returns the steps done, the next batch and the best PSNR. Raises CheckpointError."""
    state = read_torch(path)
    if not isinstance(state, dict) or state.get("format") != RUN_FORMAT:
        raise CheckpointError(f"{path}: not a run of deblur-train (or of another version)")
    old = tomllib.loads(state["config"])
    for key, now in (("backbone", learner.config.backbone), ("batch_size", learner.config.batch_size)):
        if old.get(key) != now:
            raise CheckpointError(
                f"{path}: the run has {key} = {old.get(key)!r}, not {now!r}; leave that option out to resume it"
            )
    if state["ranks"] != distributed.world_size():
        raise CheckpointError(
            f"{path}: the run has {state['ranks']} rank(s), not {distributed.world_size()}; resume it with as many"
        )
    try:
        learner.load_state_dict(state)
    except (RuntimeError, KeyError, ValueError, TypeError) as e:
        raise CheckpointError(f"{path}: does not fit the config: {str(e).splitlines()[0]}") from None
    torch.set_rng_state(state["rng"])
    if state["rng_cuda"] and learner.device.type == "cuda":
        torch.cuda.set_rng_state_all(state["rng_cuda"])
    return state["step"], state["batch"], state["best"]


def read_validation_frames(
    index: ShardIndex, wanted: int, say: Callable[[str], None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(blur, sharp) of up to ``wanted`` samples spread evenly over the validation shards."""
    if not index.samples or wanted == 0:
        return []
    spread = np.unique(
        np.linspace(0, len(index.samples) - 1, min(wanted, len(index.samples))).round().astype(int)
    )
    reader, frames = ShardReader(index.paths), []
    for i in spread:
        sample: Sample = index.samples[int(i)]
        try:
            frames.append(reader.pair(sample))
        except DecodeError as e:
            say(f"warning: {index.paths[sample.shard].name}:{sample.key}: {e}; not validated on")
    reader.close()
    return frames


def validate(
    learner: Learner, frames: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Mean PSNR (dB) and SSIM of whole frames with the weights to use, beside the blurred input's; and some pictures."""
    generator = build_generator(learner.config.backbone)
    generator.load_state_dict(learner.weights())
    set_norm_stats(generator, learner.config.run.val_norm_stats, round(1.5 * learner.config.crop))
    generator.to(learner.device).eval()
    rows: list[tuple[float, float, float, float]] = []
    pictures: list[np.ndarray] = []
    for blur, sharp in frames:
        y = restore(generator, blur)
        rows.append((psnr(y, sharp), ssim(y, sharp), psnr(blur, sharp), ssim(blur, sharp)))
        if len(pictures) < 4:
            pictures.append(np.concatenate([blur, y, sharp], axis=1))
    # Equal images have infinite PSNR; 100 dB stands for that in a mean.
    means = np.minimum(np.array(rows), 100.0).mean(0)
    names = ("val_psnr", "val_ssim", "val_psnr_blurred", "val_ssim_blurred")
    return {k: round(float(v), 5) for k, v in zip(names, means, strict=True)}, pictures


def mean_over_ranks(values: dict[str, torch.Tensor]) -> dict[str, float]:
    stacked = torch.stack([v.detach().float() for v in values.values()])
    return dict(zip(values, distributed.all_reduce_mean(stacked).tolist(), strict=True))


def check_finite(finite: torch.Tensor, step: int, saved: int, folder: Path) -> None:
    """Stop when a loss or gradient became NaN or infinite; what is saved is from before."""
    if distributed.any_rank(not bool(finite), finite.device):
        good = (
            f"the last good state is {folder / 'last.pt'} (step {saved})"
            if saved
            else "no state was saved before"
        )
        raise TrainError(
            f'the loss or a gradient is not finite at or before step {step}; {good}. Try a lower rate, clip_norm or amp = "off"'
        )


class Log:
    """``log.jsonl``: one object a line, flushed line by line."""

    def __init__(self, path: Path, writing: bool) -> None:
        self.path, self.writing = path, writing

    def write(self, row: dict[str, Any]) -> None:
        if self.writing:
            with self.path.open("a", encoding="utf-8") as f:
                f.write(
                    json.dumps({k: float(f"{v:.7g}") if isinstance(v, float) else v for k, v in row.items()})
                    + "\n"
                )

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue  # a line cut by a kill
        return [r for r in rows if isinstance(r, dict) and "step" in r]

    def keep_until(self, step: int) -> None:
        """Drop what a killed run wrote after the state it is resumed from."""
        kept = [json.dumps(r) for r in self.rows() if r["step"] <= step]
        if self.writing:
            write_atomically(self.path, lambda f: f.write("".join(line + "\n" for line in kept).encode()))


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM and Ctrl-C into a question that the loop asks after each step; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread (fit called from a program): leave signals to it
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
