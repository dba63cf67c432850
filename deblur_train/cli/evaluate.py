"""``deblur-train eval``: options to the function of evaluate.py, and its means as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from blursynth.common.command import Command, say
from blursynth.common.errors import UserError
from blursynth.common.text import counted
from deblur_train.cli.shared import DEVICE, NORM_STATS, TILE, checkpoint_option


@click.command("eval", cls=Command)
@checkpoint_option("ours, an official file, or an exported .onnx or .tflite")
@click.option(
    "--restored",
    metavar="DIR",
    help="Measure the pictures in this folder in place of a checkpoint: another method restored them, under the names of the pairs.",
)
@click.option("--shards", metavar="DATA", help="Shards to measure on: a folder or URL.")
@click.option(
    "--split",
    type=click.Choice(["val", "train"]),
    default="val",
    show_default=True,
    help="Which split to measure on. With --pairs: of sets that have official splits.",
)
@click.option(
    "--pairs",
    metavar="ROOT",
    help="Pairs in folders to measure on, laid out as by their authors: GoPro, RealBlur, REDS, BSD, DVD, RSBlur, input/target, lq/gt; or a text file with two paths in each line.",
)
@click.option("--blur", metavar="DIR", help="Folder of blurred pictures; give it with --sharp.")
@click.option("--sharp", metavar="DIR", help="Folder of sharp pictures; names or numbers are as in --blur.")
@click.option(
    "--json",
    "report",
    metavar="FILE",
    help="Write all values to this file. A CSV and a PNG with pictures go beside it.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Measure at most this many pairs, spread evenly over the set.  [default: all]",
)
@click.option(
    "--align",
    type=click.Choice(["ecc"]),
    help="Align each picture with the sharp one first, as RealBlur's protocol does; PSNR and SSIM only.  [default: off]",
)
@click.option("--lpips", is_flag=True, help="Also measure LPIPS (extra: lpips).")
@click.option(
    "--y-channel",
    is_flag=True,
    help="Also measure PSNR of the Y channel (BT.601, 16 to 235). Papers that use rgb2ycbcr of MATLAB or BasicSR report that.",
)
@TILE
@NORM_STATS
@DEVICE
def evaluate_command(
    checkpoint: str,
    restored: str | None,
    tile: Any,
    shards: str | None,
    pairs: str | None,
    split: str,
    blur: str | None,
    sharp: str | None,
    report: str | None,
    limit: int | None,
    align: Any,
    lpips: bool,
    y_channel: bool,
    norm_stats: Any,
    device: str,
) -> None:
    """Measure a network: PSNR, SSIM and edge retention on whole frames.

    The table shows them for the blurred and for the restored frames. Edge retention is the share of the edges (by
    Canny) that the restored and the sharp frame have in common; 1 is best.

    \b
    deblur-train eval --checkpoint runs/first/best.safetensors --shards data
    deblur-train eval --pairs GOPRO_Large
    """
    from deblur_train.evaluation.evaluate import evaluate

    if align and (lpips or y_channel):
        raise click.UsageError("--align ecc measures PSNR and SSIM alone; leave out --lpips and --y-channel")
    result = evaluate(
        None,
        checkpoint,
        report,
        norm_stats,
        device,
        lpips,
        align=align,
        tile=tile,
        restored=restored,
        y_channel=y_channel,
        shards=shards,
        pairs=pairs,
        blur=blur,
        sharp=sharp,
        split=split,
        limit=limit,
    )
    mean = result["mean"]
    say(
        f"{counted(result['images'], 'image')}"
        + (
            f" of {restored}"
            if restored
            else f", norm statistics: {result['norm_stats'] or 'those of the file'}"
        )
    )
    say(f"{'':16}{'blurred':>10}{'restored':>10}{'change':>10}")
    for metric, words in (
        ("psnr", "PSNR, dB"),
        ("psnr_y", "PSNR of Y, dB"),
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
    if left_out := result["left_out"]:
        raise UserError(f"{counted(len(left_out), 'pair')} left out, the first: {left_out[0]}")
