"""Training, from shards to weights: :func:`fit` reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from blursynth.common.atomic import write_atomic
from blursynth.common.progress import Meter, show_line
from blursynth.common.stop import stop_asked
from deblur_train import distributed
from deblur_train.config import ConfigError, TrainConfig, dump_config, load_config
from deblur_train.data.index import DataError, ShardIndex, index_split, require_samples
from deblur_train.data.loader import load_batches, usable_workers
from deblur_train.data.stream import CropOptions, CropStream
from deblur_train.evaluation.plot import curves, save_png
from deblur_train.inference.tensors import to_device
from deblur_train.models.pretrained import load_perceptual
from deblur_train.training.board import Board
from deblur_train.training.pace import Means, Pace
from deblur_train.training.run_folder import (
    Log,
    Progress,
    TrainError,
    alone,
    load_initial,
    refuse_to_overwrite,
    restore_run,
    save_state,
    save_weights,
)
from deblur_train.training.schedule import backbone_frozen, learning_rate, norms_tracked
from deblur_train.training.step import Learner, tune
from deblur_train.training.validate import measure_of, read_validation_frames, strips, validate
from deblur_train.training.words import (
    first_and_last,
    forecast,
    introduction,
    resumed,
    shared_sources,
    small_frames,
)


@dataclass(frozen=True)
class FitResult:
    folder: Path
    steps: int
    interrupted: bool
    best_psnr: float | None  # dB, on whole validation frames; None without validation
    losses: (
        tuple[float, float] | None
    )  # the generator's mean loss in the first and the last fifth of the steps


def fit(
    config: TrainConfig | str | Path = "paper",
    resume: bool = False,
    console: Console | None = None,
    **options: Any,
) -> FitResult:
    """Train into a run folder; ``fit("modern", shards="data", steps=5000)`` is the command's call from Python.

    ``config``: a config, or the name or file of one with ``options`` over it (keys of TrainConfig; a table as a dict).
    ``resume``: go on with the run in its folder. That folder holds ``config.toml``, ``log.jsonl``, ``last.pt`` (the whole
    state), ``last.safetensors``, ``best.safetensors`` (by validation PSNR), ``val.png`` (frames of the last validation) and,
    at the end, ``curves.png``. Raises ConfigError, DataError, CheckpointError or TrainError, each in one line.
    """
    if isinstance(config, str | Path):
        config = load_config(str(config), options)
    elif options:
        raise ConfigError(f"{', '.join(options)}: given beside a whole config; put it into the config")
    console = console or Console()
    folder, run, accumulate = config.run_folder, config.run, config.optim.accumulate
    device = distributed.join(distributed.choose_device(config.device))
    chief, ranks = distributed.rank() == 0, distributed.world_size()
    say = _speaker(console, chief)
    if not config.shards:
        raise ConfigError("no shards to train on: give --shards DATA, the folder that blursynth make wrote")
    refuse_to_overwrite(folder, resume)

    # What there is to learn from.
    train = [_index(data, "train", say) for data in config.shards]
    for index, data in zip(train, config.shards, strict=True):
        require_samples(index, data, "train")
        say(small_frames(index, data, config.crop))
    held = config.val_shards or config.shards[0]
    val = _index(held, "val", say, told=held in config.shards)
    asked = bool(config.val_shards and config.data.val_frames)
    if asked:
        require_samples(val, held, "val")
    for index, data in zip(train, config.shards, strict=True):
        say(shared_sources(data, index, held, val))
    frames = read_validation_frames(val, config.data.val_frames, say) if chief else []
    if asked and chief and not frames:
        raise DataError(f"{held}: no frame to validate on can be decoded; make or copy these shards again")

    # What learns.
    torch.manual_seed(config.seed)
    if run.threads:
        torch.set_num_threads(run.threads)
    tune(device, run)
    vgg = load_perceptual(config.perceptual) if config.perceptual != "off" else None
    going_on = resume and (folder / "last.pt").exists()
    # A resumed run holds its weights; the files that it started from may be gone.
    without = config.model_copy(update={"model": config.model.model_copy(update={"weights": "off"})})
    learner = Learner(without if going_on else config, device, vgg)
    if config.init and not going_on:
        load_initial(learner.generator, config.init)
    at = restore_run(folder / "last.pt", learner) if going_on else Progress()
    learner.start()
    if chief:
        say(at.measured_on(measure_of(frames, run, config.crop)))

    # How it is fed.
    d = config.data
    options_ = CropOptions(
        config.batch_size, config.crop, d.crops_per_frame, d.frames_in_flight, d.lanes, d.augment, d.noise
    )
    stream = CropStream(train, options_, config.seed, distributed.rank(), ranks, at.batch, config.mix)
    workers = usable_workers(_workers(config, device), d.lanes)
    batches = load_batches(stream, workers, pin_memory=device.type == "cuda")

    for line in introduction(config, train, val, device, workers, vgg.name if vgg else "", bool(frames)):
        say(line)
    if resume and chief:
        say(resumed(config, folder, at) if going_on else f"{folder}: no last.pt to resume; begun at step 0")
    pace, means = Pace(config, at.step, ranks), Means()
    board = Board(folder if run.tensorboard and chief else None)
    stopping = False
    # Closed in any case, for that ends the decoding workers.
    with (
        closing(batches),
        alone(folder) if chief else nullcontext(),
        stop_asked() as stop,
        Meter("training", config.steps, at.step, "step", quiet=not chief, console=console) as meter,
    ):
        # From here on the folder is this run's.
        if chief:  # first: by it the rest is known for a run's
            write_atomic(folder / "config.toml", dump_config(config).encode())
        log = Log(folder / "log.jsonl", chief)
        log.keep_until(at.step)
        while at.step < config.steps and not stopping:
            with pace.waiting():
                taken = [next(batches) for _ in range(accumulate)]
                pairs = [
                    (
                        to_device(b["blur"], device, run.channels_last),
                        to_device(b["sharp"], device, run.channels_last),
                    )
                    for b in taken
                ]
            for fault in [f for b in taken for f in b["faults"]]:
                meter.say(f"warning: passed over {fault}")

            lr = learning_rate(config.schedule, at.step, config.steps)
            frozen = backbone_frozen(config.schedule, at.step, config.steps)
            fixed = norms_tracked(config.schedule, at.step, config.steps)
            means.add(learner.step(pairs, lr, frozen, fixed))
            at.step, at.batch = at.step + 1, at.batch + accumulate
            if seconds := pace.measured(at.step, device):
                meter.say(forecast(seconds, config.steps - at.step, bool(frames)))

            if pace.asks(at.step):
                stopping = distributed.any_rank(stop(), device)  # ranks stop at the same step
            logging, validating, saving = pace.due(at.step, stopping)
            if device.type == "cpu" or logging or validating or saving:
                check_finite(means, at, folder)
            note = None
            if logging:
                numbers = means.take() | {"lr": lr}
                log.write({"step": at.step, **numbers, **pace.lap(at.step)})
                board.numbers(at.step, numbers)
                note = f"loss {numbers['loss_g']:.4g}"
            with pace.paused():
                if frames and validating:
                    meter.say(judge(learner, frames, config, at, log, board))
                if saving:
                    save_state(folder, learner, config, at, validating=bool(frames))
                if saving or validating:
                    distributed.barrier()  # the others wait while rank 0 validates and saves
            meter.advance(note)
    board.close()

    if chief:
        save_png(folder / "curves.png", curves(log.rows()))
    distributed.leave()
    return FitResult(folder, at.step, stopping and at.step < config.steps, at.best, first_and_last(log))


def judge(
    learner: Learner,
    frames: list[tuple[np.ndarray, np.ndarray]],
    config: TrainConfig,
    at: Progress,
    log: Log,
    board: Board,
) -> str:
    """Validate, show it in ``val.png``, keep the weights if they are the best so far, and say so in one line."""
    scores, shown = validate(learner, frames)
    log.write({"step": at.step, **scores})
    board.numbers(at.step, scores)
    board.pictures(at.step, [np.concatenate(s, axis=1) for s in shown])
    save_png(config.run_folder / "val.png", strips(shown))
    if at.best is None or scores["val_psnr"] > at.best:
        at.best = scores["val_psnr"]
        save_weights(config.run_folder / "best.safetensors", learner, config, at)
    gain = scores["val_psnr"] - scores["val_psnr_blurred"]
    return (
        f"step {at.step}: PSNR {scores['val_psnr']:.2f} dB ({gain:+.2f} against the blurred input), "
        f"SSIM {scores['val_ssim']:.4f}"
    )


def check_finite(means: Means, at: Progress, folder: Path) -> None:
    """Stop when a loss or gradient became NaN or infinite; what is saved is from before."""
    if not means.count or means.finite():
        return
    good = (
        f"the last good state is {folder / 'last.pt'} (step {at.saved})"
        if at.saved
        else "no state was saved before"
    )
    raise TrainError(
        f'the loss or a gradient is not finite at or before step {at.step}; {good}. Try a lower rate, clip_norm or amp = "off"'
    )


def _index(data: str, split: str, say: Callable[[str], None], told: bool = False) -> ShardIndex:
    """``told``: that the folder is not finished has been said, with another split of it."""
    index = index_split(data, split)
    index.unfinished &= not told
    for line in index.report():
        say(f"warning: {data}: {line}")
    return index


def _workers(config: TrainConfig, device: torch.device) -> int:
    if config.workers is not None:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    # On a CPU the step itself needs the cores; one decoder feeds it easily.
    return 1 if device.type == "cpu" else max(1, min(8, cores // distributed.world_size() - 1))


def _speaker(console: Console, chief: bool) -> Callable[[str], None]:
    return lambda line: show_line(console, line) if chief and line else None
