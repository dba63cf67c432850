"""What a run says of itself: how it begins, how it goes on, what its losses came to. Lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote

import torch

from blursynth.common.text import counted, human_seconds
from deblur_train import distributed
from deblur_train.config import TrainConfig, load_config
from deblur_train.data.index import ShardIndex
from deblur_train.data.pictures import picture_sizes
from deblur_train.training.run_folder import Log, Progress
from deblur_train.training.schedule import learning_rate


def small_frames(index: ShardIndex, data: str, crop: int) -> str:
    """A warning where frames hold no whole crop; empty where they all do, as far as a look at 64 of them tells."""
    sizes = picture_sizes(index, 64)
    small = [s for s in sizes if min(s) < crop]
    if not small:
        return ""
    w, h = min(small, key=min)
    whose = "frames" if len(small) == len(sizes) else "some frames"
    return f"warning: {data}: {whose} are smaller ({w} x {h}) than --crop {crop} and are mirrored up to it"


def shared_sources(data: str, index: ShardIndex, held: str, val: ShardIndex) -> str:
    """A warning where a set trains on films that another set, ``held``, validates with; empty where none is shared.

    Within one set `make` keeps them apart; sets of the same films, made apart, may draw other films for val.
    """
    sources = {s.source for s in index.samples} if data != held else set()
    shared = [s for s in val.samples if s.source and s.source in sources]
    if not shared:
        return ""
    clips = sorted({s.clip for s in shared})
    names = ", ".join(clips[:3]) + (", ..." if len(clips) > 3 else "")
    return (
        f"warning: {data}: trains on {counted(len(clips), 'source')} that {held} validates with ({names}): PSNR will be too "
        "high for new pictures; give --val-shards of other sources"
    )


def introduction(
    config: TrainConfig,
    train: list[ShardIndex],
    val: ShardIndex,
    device: torch.device,
    workers: int,
    perceptual: str,
    validating: bool,
) -> Iterator[str]:
    samples, shards = sum(len(i.samples) for i in train), sum(len(i.paths) for i in train)
    ranks = distributed.world_size()
    yield (
        f"{config.backbone} on {counted(samples, 'sample')} in {counted(shards, 'shard')}; {device}, "
        f"{counted(ranks, 'rank') + ', ' if ranks > 1 else ''}{counted(workers, 'decoding worker')}"
    )
    if config.workers and workers < config.workers:
        yield (
            f"--workers {config.workers}: {workers} are used, the most that divide data.lanes = {config.data.lanes}; "
            f"--set data.lanes={config.workers} uses all"
        )
    if len(train) > 1:
        weights = config.mix or [1] * len(train)
        parts = [f"{w / sum(weights):.1%} {data}" for w, data in zip(weights, config.shards, strict=True)]
        yield f"mixed: {', '.join(parts)}"
    if perceptual:
        yield f"perceptual loss: {perceptual} from {config.perceptual}"
    elif config.loss.perceptual_weight:
        yield "perceptual loss: off; --perceptual imagenet turns it on (VGG19, downloaded)"
    if not validating:
        why = (
            "no usable val sample"
            if val.paths
            else "no val-*.tar shard (make keeps a film for val where it has two)"
        )
        why = "val_frames is 0" if config.data.val_frames == 0 else why
        yield f"no validation: {why}; best.safetensors will be the last weights"


def forecast(seconds: float, left: int, validating: bool) -> str:
    """What the steps that are left cost, and when they end by this machine's clock."""
    end = datetime.now() + timedelta(seconds=seconds * left)
    day = "" if end.date() == datetime.now().date() else f"{end:%Y-%m-%d} "
    return (
        f"{seconds:.2g} s a step: {left} more steps take about {human_seconds(seconds * left)} and end at about {day}{end:%H:%M}"
        + (", validations not counted" if validating else "")
    )


def what_next(config: TrainConfig, validated: bool) -> list[str]:
    """The commands that use what a run made. Without validation ``eval`` has the training pairs alone to measure on."""
    best = quote(str(config.run_folder / "best.safetensors"))
    trained = config.shards[0] if config.shards else "DATA"
    data = quote((validated and config.val_shards) or trained)
    stats = config.run.val_norm_stats
    use = f"--checkpoint {best}" + (f" --norm-stats {stats}" if stats != "tracked" else "")
    measure = f"  deblur-train eval {use} --shards {data}"
    if validated:
        measure += "   # PSNR and SSIM on the val split"
    else:
        measure += " --split train   # PSNR and SSIM, on the pairs that it was trained on"
    return [
        "next:",
        measure,
        f"  deblur-train predict photo.jpg {use}   # restores a photo or a video",
    ]


def resumed(config: TrainConfig, folder: Path, at: Progress) -> str:
    """What a resumed run will do, where its length is another than before."""
    before = (
        load_config(str(folder / "config.toml")).steps if (folder / "config.toml").is_file() else config.steps
    )
    if at.step >= config.steps:
        return f"resumed after step {at.step}: nothing is left to do; --steps above {at.step} goes on"
    if before == config.steps:
        return f"resumed after step {at.step}"
    old = learning_rate(config.schedule, max(at.step - 1, 0), before)
    new = learning_rate(config.schedule, at.step, config.steps)
    return (
        f"resumed after step {at.step} of {before}, now of {config.steps}: the schedule stretches with it, "
        f"so the rate goes from {old:.3g} to {new:.3g}"
    )


def first_and_last(log: Log) -> tuple[float, float] | None:
    """The generator's mean loss over the first and over the last fifth of the steps, as far as logged."""
    rows = [(r["step"], r["loss_g"]) for r in log.rows() if isinstance(r.get("loss_g"), int | float)]
    if not rows:
        return None
    before, _ = zip((0, 0.0), *rows[:-1], strict=True)
    spans = [(loss, step - begun) for (step, loss), begun in zip(rows, before, strict=True)]
    return _mean_of(spans, rows[-1][0] / 5), _mean_of(spans[::-1], rows[-1][0] / 5)


def _mean_of(spans: list[tuple[float, int]], steps: float) -> float:
    """Mean of the first (loss, steps it is the mean of) that together hold at least ``steps``."""
    total = held = 0.0
    for loss, n in spans:
        total, held = total + loss * n, held + n
        if held >= steps:
            break
    return total / held
