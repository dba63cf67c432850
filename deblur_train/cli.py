"""The ``deblur-train`` command. Exit status: 0 done, 1 something failed (said what), 2 usage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .checkpoint import CheckpointError, version
from .config import ConfigError, builtin_configs, load_config
from .shards import DataError


class Failed(click.ClickException):
    """Something failed: one line on stderr, exit status 1."""

    exit_code = 1


def _errors_in_one_line(work: Callable[[], Any]) -> Any:
    """Run ``work``; a user's mistake or a bad file ends in one line, never in a traceback."""
    from .train import TrainError

    try:
        return work()
    except ConfigError as e:
        raise click.UsageError(str(e)) from None
    except (DataError, CheckpointError, TrainError, ImportError) as e:
        raise Failed(str(e)) from None
    except OSError as e:
        raise Failed(f"{e.filename or 'file'}: {e.strerror or e}") from None
    except KeyboardInterrupt:
        raise Failed("interrupted") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version(), prog_name="deblur-train")
def main() -> None:
    """Train a DeblurGAN-v2 generator on shards, measure it, and use it."""


@main.command()
@click.option("--shards", metavar="DATA", help="Folder of shards, as blursynth make writes it.")
@click.option("--config", "config_name", metavar="NAME|FILE", help="Built-in config or a TOML file.")
@click.option("--backbone", type=click.Choice(["mobilenet", "mobilenet-dsc", "inception"]), help="Generator.")
@click.option("--out", metavar="DIR", help="Run folder [default: runs/NAME].")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps; the schedule stretches with them.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Crops a step.")
@click.option("--crop", type=click.IntRange(min=32), help="Side of a crop in pixels, a multiple of 32.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to train.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Decoding processes; the result does not depend on it."
)
@click.option("--resume", is_flag=True, help="Go on from the run folder's last.pt, bit for bit on a CPU.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights and data order.")
@click.option(
    "--perceptual",
    metavar="PATH|off",
    help="VGG19 weights (torchvision's), 'imagenet' to download them, or off.",
)
@click.option("--init", metavar="CHECKPOINT", help="Generator to start from: ours or an official .h5.")
def fit(config_name: str | None, resume: bool, **options: Any) -> None:
    """Train; the built-in configs are listed by an unknown --config."""
    from .train import fit as train

    def work() -> None:
        name = config_name
        folder = Path(options["out"]) if options["out"] else None
        # A run goes on with what it was started with; only what the command line says again may change.
        if resume and name is None and folder and (folder / "config.toml").exists():
            name = str(folder / "config.toml")
        config = load_config(name or "paper", options)
        if config.shards is None:
            raise ConfigError(
                f"no shards to train on: give --shards DATA (configs: {', '.join(builtin_configs())})"
            )
        console = Console()
        result = train(config, resume, console)
        if result.interrupted:
            raise Failed(
                f"stopped after step {result.steps}; all is saved in {result.folder}, go on with --resume"
            )
        if int(os.environ.get("RANK", "0")) == 0:
            best = f", best validation PSNR {result.best_psnr:.2f} dB" if result.best_psnr is not None else ""
            console.print(
                f"done: {result.steps} steps{best}; use {result.folder / 'best.safetensors'}",
                highlight=False,
                soft_wrap=True,
            )

    _errors_in_one_line(work)
