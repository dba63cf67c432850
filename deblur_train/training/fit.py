"""Training, from shards to weights: :func:`fit` reads top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from blursynth.common.atomic import write_atomic
from blursynth.common.progress import Meter
from blursynth.common.stop import stop_asked
from deblur_train import distributed
from deblur_train.config import TrainConfig, dump_config
from deblur_train.data.index import index_split, require_samples
from deblur_train.data.loader import load_batches, usable_workers
from deblur_train.data.stream import CropOptions, CropStream
from deblur_train.evaluation.plot import curves, save_png
from deblur_train.inference.tensors import to_device
from deblur_train.models.pretrained import load_vgg19
from deblur_train.training.board import Board
from deblur_train.training.run_folder import (
    Log,
    Progress,
    TrainError,
    load_initial,
    refuse_to_overwrite,
    restore_run,
    save_state,
    save_weights,
)
from deblur_train.training.schedule import backbone_frozen, learning_rate, norms_tracked
from deblur_train.training.step import Learner
from deblur_train.training.validate import read_validation_frames, validate


@dataclass(frozen=True)
class FitResult:
    folder: Path
    steps: int
    interrupted: bool
    best_psnr: float | None  # dB, on whole validation frames; None without validation
    losses: tuple[float, float] | None  # the generator's mean loss in the first and the last fifth of the log


def fit(config: TrainConfig, resume: bool = False, console: Console | None = None) -> FitResult:
    """Train as ``config`` says into its run folder. Raises DataError, CheckpointError or TrainError, each in one line.

    The run folder holds ``config.toml``, ``log.jsonl``, ``last.pt`` (the whole state), ``last.safetensors``,
    ``best.safetensors`` (by validation PSNR) and, at the end, ``curves.png``.
    """
    console = console or Console()
    folder = config.run_folder
    device = distributed.join(distributed.choose_device(config.device))
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
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    if config.run.deterministic and device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    vgg = load_vgg19(config.perceptual) if config.perceptual != "off" else None
    going_on = resume and (folder / "last.pt").exists()
    # A resumed run holds its weights; the files that it started from may be gone.
    without = config.model_copy(update={"model": config.model.model_copy(update={"weights": "off"})})
    learner = Learner(without if going_on else config, device, vgg)
    if config.init and not going_on:
        load_initial(learner.generator, config.init)
    at = restore_run(folder / "last.pt", learner) if going_on else Progress()
    learner.start()
    log = Log(folder / "log.jsonl", chief)
    log.keep_until(at.step)
    if chief:
        write_atomic(folder / "config.toml", dump_config(config).encode())

    # How it is fed.
    d, layout, accumulate = config.data, config.run.channels_last, config.optim.accumulate
    options = CropOptions(
        config.batch_size, config.crop, d.crops_per_frame, d.frames_in_flight, d.lanes, d.augment, d.noise
    )
    ranks = distributed.world_size()
    stream = CropStream(train, options, config.seed, distributed.rank(), ranks, at.batch)
    workers = usable_workers(_workers(config, device), d.lanes)
    batches = load_batches(stream, workers, pin_memory=device.type == "cuda")

    say(
        f"{config.backbone} on {len(train.samples)} samples in {len(train.paths)} shards; {device}, {ranks} rank(s), {workers} decoding worker(s)"
    )
    say(
        f"perceptual loss: {'VGG19 from ' + config.perceptual if vgg else 'off (give VGG19 weights with --perceptual FILE)'}"
    )
    if not frames:
        why = (
            "val_frames is 0"
            if d.val_frames == 0
            else "no usable val sample"
            if val.paths
            else "no val-*.tar shard"
        )
        say(f"no validation: {why}; best.safetensors will be the last state")
    if going_on:
        say(f"resumed after step {at.step}")

    finite = torch.ones((), dtype=torch.bool, device=device)
    # Sums since the last log line: one step's loss says mostly which crops it met.
    sums: dict[str, torch.Tensor] = {}
    waited, marked, since = 0.0, time.perf_counter(), at.step
    interrupted = False
    board = Board(folder if config.run.tensorboard and chief else None)
    # Closed in any case, for that ends the decoding workers.
    with (
        closing(batches),
        stop_asked() as stop,
        Meter("training", config.steps, at.step, "step", quiet=not chief, console=console) as meter,
    ):
        while at.step < config.steps and not interrupted:
            before = time.perf_counter()
            taken = [next(batches) for _ in range(accumulate)]
            pairs = [
                (to_device(b["blur"], device, layout), to_device(b["sharp"], device, layout)) for b in taken
            ]
            waited += time.perf_counter() - before
            for fault in [f for b in taken for f in b["faults"]]:
                meter.say(f"warning: passed over {fault}")

            lr = learning_rate(config.schedule, at.step, config.steps)
            frozen, fixed = (
                f(config.schedule, at.step, config.steps) for f in (backbone_frozen, norms_tracked)
            )
            values = learner.step(pairs, lr, frozen, fixed)
            at.step, at.batch = at.step + 1, at.batch + accumulate
            sums = {k: sums[k] + v for k, v in values.items()} if sums else values
            finite &= torch.isfinite(values["loss_g"]) & torch.isfinite(values["grad_norm"])

            last = at.step == config.steps
            logging = at.step % config.run.log_every == 0 or last
            validating = at.step % config.run.val_every == 0 or last
            # Ranks must stop at the same step, and asking costs a message: several ask less often.
            interrupted = distributed.any_rank(stop(), device) if ranks == 1 or at.step % 10 == 0 else False
            saving = at.step % config.run.save_every == 0 or last or interrupted

            # On a GPU reading the flag waits for the step to end, so it is read only where something depends on it.
            if device.type == "cpu" or logging or validating or saving:
                check_finite(finite, at, folder)
            note = None
            if logging:
                numbers = mean_over_ranks({k: v / (at.step - since) for k, v in sums.items()}) | {"lr": lr}
                now = time.perf_counter()
                speed = (at.step - since) * accumulate * config.batch_size * ranks / (now - marked)
                log.write(
                    {
                        "step": at.step,
                        **numbers,
                        "samples_per_s": speed,
                        "wait_share": waited / (now - marked),
                    }
                )
                board.numbers(at.step, numbers)
                waited, marked, since, sums = 0.0, now, at.step, {}
                note = f"loss {numbers['loss_g']:.4g}"
            pause = time.perf_counter()
            if frames and validating:
                scores, pictures = validate(learner, frames)
                log.write({"step": at.step, **scores})
                board.numbers(at.step, scores)
                board.pictures(at.step, pictures)
                gain = scores["val_psnr"] - scores["val_psnr_blurred"]
                meter.say(
                    f"step {at.step}: PSNR {scores['val_psnr']:.2f} dB ({gain:+.2f} against the blurred input), SSIM {scores['val_ssim']:.4f}"
                )
                if at.best is None or scores["val_psnr"] > at.best:
                    at.best = scores["val_psnr"]
                    save_weights(folder / "best.safetensors", learner, config, at)
            if saving:
                save_state(folder, learner, config, at, validating=bool(frames))
            if saving or validating:
                distributed.barrier()  # the others wait while rank 0 validates and saves
            marked += time.perf_counter() - pause  # samples_per_s is the rate of training alone
            meter.advance(note)
    board.close()

    if chief:
        save_png(folder / "curves.png", curves(log.rows()))
    distributed.leave()
    return FitResult(folder, at.step, interrupted and at.step < config.steps, at.best, first_and_last(log))


def first_and_last(log: Log) -> tuple[float, float] | None:
    """The generator's mean loss over the first and over the last fifth of the logged steps."""
    losses = [r["loss_g"] for r in log.rows() if "loss_g" in r]
    n = -(-len(losses) // 5)
    return (sum(losses[:n]) / n, sum(losses[-n:]) / n) if losses else None


def _workers(config: TrainConfig, device: torch.device) -> int:
    if config.workers is not None:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    # On a CPU the step itself needs the cores; one decoder feeds it easily.
    return 1 if device.type == "cpu" else max(1, min(8, cores // distributed.world_size() - 1))


def _speaker(console: Console, chief: bool) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False) if chief else None


def mean_over_ranks(values: dict[str, torch.Tensor]) -> dict[str, float]:
    stacked = torch.stack([v.detach().float() for v in values.values()])
    return dict(zip(values, distributed.all_reduce_mean(stacked).tolist(), strict=True))


def check_finite(finite: torch.Tensor, at: Progress, folder: Path) -> None:
    """Stop when a loss or gradient became NaN or infinite; what is saved is from before."""
    if distributed.any_rank(not bool(finite), finite.device):
        good = (
            f"the last good state is {folder / 'last.pt'} (step {at.saved})"
            if at.saved
            else "no state was saved before"
        )
        raise TrainError(
            f'the loss or a gradient is not finite at or before step {at.step}; {good}. Try a lower rate, clip_norm or amp = "off"'
        )
