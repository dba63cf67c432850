"""The ``deblur-train`` command. Exit status: 0 done, 1 something failed (said what), 2 usage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from blursynth import __version__
from blursynth.common.command import CONTEXT, say
from blursynth.common.errors import UserError
from deblur_train.cli.export import bench_command, export_command
from deblur_train.cli.predict import predict_command
from deblur_train.cli.shared import DEVICE, NORM_STATS, TrainCommands, checkpoint_option


@click.group(cls=TrainCommands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="deblur-train")
def main() -> None:
    """Train a DeblurGAN-v2 generator on shards, measure it, and use it."""


main.add_command(export_command)
main.add_command(bench_command)
main.add_command(predict_command)


@main.command()
@click.option("--shards", metavar="DATA", help="Folder of shards, as blursynth make writes it.")
@click.option("--config", "config_name", metavar="NAME|FILE", help="Built-in config or a TOML file.")
@click.option(
    "--backbone", type=click.Choice(["mobilenet", "mobilenet-dsc", "inception", "nafnet"]), help="Generator."
)
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
@click.option("--init", metavar="CHECKPOINT", help="Generator to start from: ours or an official file.")
def fit(config_name: str | None, resume: bool, **options: Any) -> None:
    """Train; the built-in configs are listed by an unknown --config."""
    from deblur_train.config import ConfigError, builtin_configs, load_config
    from deblur_train.training.fit import fit as train

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
    result = train(config, resume)
    if result.interrupted:
        raise UserError(
            f"stopped after step {result.steps}; all is saved in {result.folder}, go on with --resume"
        )
    if int(os.environ.get("RANK", "0")) == 0:
        best = f", best validation PSNR {result.best_psnr:.2f} dB" if result.best_psnr is not None else ""
        fall = f", loss {result.losses[0]:.4g} -> {result.losses[1]:.4g}" if result.losses else ""
        say(f"done: {result.steps} steps{fall}{best}; use {result.folder / 'best.safetensors'}")


@main.command("eval")
@checkpoint_option("ours or an official file")
@click.option("--shards", metavar="DATA", help="Folder of shards to measure on.")
@click.option(
    "--split", type=click.Choice(["val", "train"]), default="val", show_default=True, help="Which shards."
)
@click.option("--blur", metavar="DIR", help="Folder of blurred images, with --sharp.")
@click.option("--sharp", metavar="DIR", help="Folder of sharp images of the same names.")
@click.option(
    "--json",
    "report",
    metavar="FILE",
    help="Write all values here; a CSV and a contact sheet PNG go beside it.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Measure on at most this many pairs, evenly spread."
)
@click.option("--lpips", is_flag=True, help="Also LPIPS (extra: lpips).")
@NORM_STATS
@DEVICE
def evaluate_command(
    checkpoint: str,
    shards: str | None,
    split: str,
    blur: str | None,
    sharp: str | None,
    report: str | None,
    limit: int | None,
    lpips: bool,
    norm_stats: Any,
    device: str,
) -> None:
    """Measure a checkpoint: PSNR, SSIM and edge retention on whole frames, beside the blurred input."""
    from deblur_train.distributed import choose_device
    from deblur_train.evaluation.evaluate import evaluate, pairs_from_folders, pairs_from_shards

    if (shards is None) == (blur is None or sharp is None) or (
        shards is None and (blur is None or sharp is None)
    ):
        raise click.UsageError("give either --shards DATA, or both --blur DIR and --sharp DIR")

    source = (
        pairs_from_shards(shards, split, limit)
        if shards
        else pairs_from_folders(str(blur), str(sharp), limit)
    )
    result = evaluate(
        source,
        checkpoint,
        Path(report) if report else None,
        norm_stats,
        choose_device(device),
        lpips,
    )
    mean = result["mean"]
    say(f"{result['images']} images, norm statistics: {norm_stats}")
    say(f"{'':16}{'blurred':>10}{'restored':>10}{'change':>10}")
    for metric, words in (
        ("psnr", "PSNR, dB"),
        ("ssim", "SSIM"),
        ("edge_retention", "edge retention"),
        ("lpips", "LPIPS"),
    ):
        if metric in mean:
            values = "".join(f"{mean[metric + suffix]:>{10}.4f}" for suffix in ("_blurred", ""))
            say(f"{words:16}{values}{mean[metric + '_delta']:>+10.4f}")
    if report:
        say(
            f"written: {report}, {Path(report).with_suffix('.csv')}, {Path(report).with_suffix('.png')}",
        )


if __name__ == "__main__":
    main()
