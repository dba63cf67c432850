"""``blursynth inspect``, ``audit``, ``verify``, ``explain``: what is in a source or in shards, and is it right?"""

from __future__ import annotations

import shlex
import sys

import click

from blursynth.common.command import Command, say


@click.command("inspect", cls=Command, short_help="Look at a data set, or at a video.")
@click.argument("target", metavar="DATA_OR_VIDEO")
@click.option(
    "--out",
    default="preview.html",
    show_default=True,
    metavar="FILE.html",
    help="The page to write; a picture of it, with the same name and .png, goes beside it.",
)
@click.option(
    "--samples",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="How many samples to show; of a video, how many windows of its frames.",
)
def inspect_command(target: str, out: str, samples: int) -> None:
    """Look at a data set, or at a video before you make pairs: pictures, blur lengths, what was left out.

    The page shows samples from the weakest blur to the strongest, then one window of each reason that windows were left
    out for, then the figures.

    \b
    motion px   a / b: half of the picture moves less than a pixels from one
                frame to the next, its fastest 5% more than b
    blur px     length of the blur: the fastest 5% of the picture go at least
                so many pixels while the shutter is open
    noise       deviation of the noise in sharp frames, in 8-bit codes

    \b
    blursynth inspect data
    blursynth inspect clip.mp4 --out clip.html
    """
    from blursynth.preview.inspect import inspect, print_report
    from blursynth.shards.store import require_local

    report = inspect(require_local(target, "inspect"), out, samples)
    print_report(report)
    sys.exit(getattr(report, "exit_code", 0))


@click.command("audit", cls=Command, short_help="Check film before you make pairs of it.")
@click.argument("src", nargs=-1, required=True)
@click.option("--fps", type=float, help="Frames per second of the sources, in place of what the files say.")
@click.option("--window", type=click.IntRange(3), help="Frames in one window.  [default: the recipe's]")
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    help="The recipe that make will use; audit takes window, fps, crf and deinterlace from it.  [default: realistic]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the report as CSV, one row for each clip.")
def audit_command(
    src: tuple[str, ...],
    fps: float | None,
    window: int | None,
    recipe: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Check film before you make pairs of it: frame rate, cuts, repeated frames, damage, blur, motion.

    SRC: videos, folders of videos or frames, globs. The columns of the table:

    \b
    verdict     ok; warn: usable, and the lines below the table say what to do; reject: not usable
    motion px   how far things move from one frame to the next: median / fastest 5% of the picture
    soft        share of the frames that are more blurred than the sharpest ones near them
    clipped     share of the pixels that are pure white
    noise       standard deviation of the noise, in codes of 0 to 255
    windows     runs of frames that become one pair: free of cuts, repeats and damage / all

    \b
    blursynth audit films/
    """
    from blursynth.checks.audit import audit_source
    from blursynth.recipe import load_recipe

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    planned, _ = load_recipe(recipe)
    frames = window or planned.window_range[0]
    report = audit_source(list(src), fps, window=frames, recipe=planned)
    say(report.to_json() if as_json else report.to_csv() if as_csv else report)
    if not (as_json or as_csv) and any(c.verdict != "reject" and c.windows for c in report.clips):
        options = [f"--recipe {recipe}" if recipe else "", f"--window {window}" if window else ""]
        options.append(f"--fps {fps:g}" if fps else "")
        say(" ".join(["next: blursynth make", shlex.join(src), *filter(None, options)]))
    sys.exit(report.exit_code)


@click.command("verify", cls=Command, short_help="Check a data set for damage.")
@click.argument("data", metavar="DATA|URL")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quick", is_flag=True, help="Check checksums, counts and splits only; decode no pictures.")
def verify_command(data: str, as_json: bool, quick: bool) -> None:
    """Check a data set: checksums and counts are right, no two splits show the same pictures, every picture decodes, and
    dataset.json, samples.csv, recipe.toml, _info.json and croissant.json are those of the shards.

    It prints what is wrong and ends with exit code 1, or with 0 where all is well.

    \b
    blursynth verify data
    """
    from blursynth.checks.verify import verify

    report = verify(data, decode=not quick)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command("explain", cls=Command, short_help="Show how a sample was made, and make it again.")
@click.argument("data", metavar="DATA|URL")
@click.argument("key")
@click.option(
    "--src",
    multiple=True,
    metavar="PATH",
    help="Where the films are now, if they have moved.  [default: where make found them]",
)
@click.option(
    "--picture",
    metavar="FILE.png",
    help="Also write a picture: the frames of the window under the blurred and the sharp one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def explain_command(data: str, key: str, src: tuple[str, ...], picture: str | None, as_json: bool) -> None:
    """Show which frames, weights and settings made a sample. Then make it again and compare the bytes.

    KEY is the name of a sample in a tar, without its ending (.blur.png); inspect shows it under each picture.

    \b
    blursynth explain data GOPR0372_07_00_000008_09
    blursynth explain data GOPR0372_07_00_000008_09 --picture sample.png
    """
    from blursynth.checks.explain import explain

    report = explain(data, key, list(src) or None, picture)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)
