"""The ``blursynth`` command: a thin layer over the Python functions of the same names."""

from __future__ import annotations

import sys
from typing import Any

import click

from blursynth import __version__
from blursynth.common.command import CONTEXT, Commands, say


class Blursynth(Commands):
    stopped = "stopped; finished shards stay, the same command goes on"


@click.group(cls=Blursynth, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="blursynth")
def main() -> None:
    """Realistic motion blur from high-frame-rate video: training pairs as WebDataset shards."""


@main.command("make")
@click.option(
    "--src",
    multiple=True,
    metavar="PATH",
    help="A video, a folder of videos or frames, or a known data set's root. Repeatable.",
)
@click.option(
    "--out", metavar="DIR|URL", help="Where the shards go: a folder, or s3://BUCKET/FOLDER.  [default: data]"
)
@click.option(
    "--recipe", metavar="NAME|FILE.toml", help="Built-in recipe or a file; the options below win over it."
)
@click.option(
    "--fps-up", type=int, help="Most sub-steps an interval between two frames takes.  [default: 16]"
)
@click.option(
    "--interp", help="Optical flow: deepflow, deepflow-opencv, dis, rife, none.  [default: deepflow]"
)
@click.option(
    "--window",
    metavar="N|N-M|hint",
    help="Source frames a sample exposes; N-M draws per sample; hint: as the clip is named.  [default: 9]",
)
@click.option("--stride", type=int, help="Frames between window starts.  [default: the window]")
@click.option("--fps", type=float, help="Source frames per second, in place of what the source says.")
@click.option("--profile", metavar="box|triangle|FILE.npy", help="Weight of the light over the exposure.")
@click.option(
    "--duty",
    metavar="S|LO-HI",
    help="Share of the window that is exposed; LO-HI draws per sample.  [default: 1]",
)
@click.option(
    "--shake",
    metavar="PX|LO-HI",
    help="Camera shake added to the exposure: px of path, drawn per sample, as 4-20.  [default: none]",
)
@click.option(
    "--source-duty", type=float, help="Share of a frame interval that the source's own shutter was open."
)
@click.option("--readout-ms", type=float, help="Rolling shutter: first row's exposure to the last's.")
@click.option("--flow-scale", type=float, help="Compute flow at this scale of the frame.")
@click.option("--rife-weights", metavar="FILE", help="Weights for --interp rife.")
@click.option(
    "--crf", metavar="srgb|gamma2.2|gamma1-2.6|display|FILE.npy", help="Response curve.  [default: srgb]"
)
@click.option("--crf-out", metavar="CURVE", help="Response of the simulated camera.  [default: the source's]")
@click.option("--highlights", metavar="off|A|LO-HI|rsblur|auto", help="Restore clipped light.")
@click.option(
    "--noise",
    metavar="off|rsblur|realblur|iso|restore|restore+CAMERA|B1,B2",
    help="Camera noise of the blur.",
)
@click.option("--jpeg", metavar="off|Q|LO-HI", help="The camera's JPEG on the blur.")
@click.option("--target-camera", metavar="clean|jpeg", help="The target: clean, or with the blur's JPEG.")
@click.option("--gate", metavar="off|default|NAME<VALUE,...", help="Reject poor samples.")
@click.option("--val-fraction", type=float, help="Share of the clips that go to val.  [default: 0.1]")
@click.option("--seed", type=int, help="Seed of every random draw.  [default: 0]")
@click.option("--max-samples", type=int, help="Stop after this many, spread over all clips.")
@click.option("--shard-samples", type=int, help="Samples a shard.  [default: from the plan, at most 100]")
@click.option("--tile", type=int, metavar="PX", help="Cut samples into tiles of PX x PX.")
@click.option("--format", help="Lossless image format: png or webp.  [default: png]")
@click.option(
    "--store", metavar="8bit|linear16", help="linear16 also stores the noise-free linear blur, 16 bits."
)
@click.option(
    "--workers", type=int, help="Worker processes; 1 runs in this process.  [default: the number of cores]"
)
@click.option("--engine", metavar="local|dask://HOST:PORT", help="Where tasks run.  [default: local]")
@click.option("--device", help="cpu or cuda.  [default: cpu]")
@click.option(
    "--overwrite", is_flag=True, default=None, help="Remove the shards blursynth made in --out first."
)
@click.option("--retry-failed", is_flag=True, default=None, help="Make just the shards again that failed.")
@click.option(
    "--dry-run",
    is_flag=True,
    default=None,
    help="Say how many samples, how much disk, how long; write nothing.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
def make_command(
    src: tuple[str, ...], out: str | None, recipe: str | None, quiet: bool, **options: Any
) -> None:
    """Synthesise blurred and sharp pairs. Running it again resumes."""
    from blursynth.run.make import make

    summary = make(list(src) or None, out, recipe, quiet=quiet, **options)
    say(str(summary))
    sys.exit(summary.exit_code)


@main.command("inspect")
@click.argument("target", metavar="DATA_OR_VIDEO")
@click.option("--out", default="preview.html", show_default=True, metavar="FILE.html")
@click.option("--samples", default=16, show_default=True, type=click.IntRange(1))
def inspect_command(target: str, out: str, samples: int) -> None:
    """Table and pictures of a data set, or of a video before synthesis."""
    from blursynth.preview.inspect import inspect, print_report
    from blursynth.shards.store import require_local

    report = inspect(require_local(target, "inspect"), out, samples)
    print_report(report)
    sys.exit(getattr(report, "exit_code", 0))


@main.command("audit")
@click.argument("src", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def audit_command(src: tuple[str, ...], as_json: bool) -> None:
    """What is wrong with a source, before hours are spent on it."""
    from blursynth.checks.audit import audit_source

    report = audit_source(list(src))
    say(report.to_json() if as_json else str(report))
    sys.exit(getattr(report, "exit_code", 0))


@main.command("verify")
@click.argument("data", metavar="DATA|URL")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quick", is_flag=True, help="Checksums, counts and splits only; images are not decoded.")
def verify_command(data: str, as_json: bool, quick: bool) -> None:
    """Checksums, counts, split leaks, decodability of a data set."""
    from blursynth.checks.verify import verify

    report = verify(data, decode=not quick)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@main.command("explain")
@click.argument("data", metavar="DATA|URL")
@click.argument("key")
@click.option(
    "--src",
    multiple=True,
    metavar="PATH",
    help="Where the sources lie now.  [default: where make found them]",
)
@click.option("--picture", metavar="FILE.png", help="Contact sheet: the window's frames, blurred, sharp.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain_command(data: str, key: str, src: tuple[str, ...], picture: str | None, as_json: bool) -> None:
    """Which frames, weights and settings made this sample; rebuilds it and compares bytes."""
    from blursynth.checks.explain import explain

    report = explain(data, key, list(src) or None, picture)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


if __name__ == "__main__":
    main()
