"""``blursynth pack``, ``unpack`` and ``match``: the field's own pairs in, shards out for its tools, photos to a recipe."""

from __future__ import annotations

import sys
from typing import Any

import click

from blursynth.common.command import Command, say


@click.command("pack", cls=Command)
@click.argument("root", required=False, metavar="[ROOT]")
@click.option(
    "--blur", metavar="DIR", help="Folder of the blurred pictures; give it with --sharp, in place of ROOT."
)
@click.option(
    "--sharp", metavar="DIR", help="Folder of the sharp pictures; names or numbers are as in --blur."
)
@click.option("--out", default="data", show_default=True, metavar="DATA", help="Folder of the shards.")
@click.option(
    "--val-fraction",
    default=0.1,
    show_default=True,
    type=float,
    help="Share of the scenes that are kept for validation.",
)
@click.option("--gamma", is_flag=True, help="Take blur_gamma of GoPro's folders in place of blur.")
@click.option(
    "--seed", default=0, show_default=True, type=int, help="Another seed keeps other scenes for validation."
)
@click.option(
    "--shard-samples",
    type=int,
    metavar="N",
    help="Most pairs in one shard; default: about 400 MB of them, at least 50.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def pack_command(root: str | None, as_json: bool, **options: Any) -> None:
    """Put finished pairs into shards.

    ROOT is a folder laid out like GoPro, RealBlur, REDS, BSD, DVD, RSBlur, NAFNet (input, target) or BasicSR (lq, gt); or a
    text file with two paths in each line. PNG and lossless WebP files are copied byte for byte; others become PNG. What is
    not known about a pair is null in its JSON.

    \b
    blursynth pack GOPRO_Large --out gopro
    blursynth pack --blur shots/blurred --sharp shots/sharp --out mine
    """
    from blursynth.exchange.pack import pack

    report = pack(root, **options)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command("unpack", cls=Command)
@click.argument("data", metavar="DATA|URL")
@click.option("--out", required=True, metavar="DIR", help="Folder to write, new or empty.")
@click.option(
    "--layout",
    default="nafnet",
    show_default=True,
    type=click.Choice(["nafnet", "basicsr", "gopro"]),
    help="The layout to write; see above.",
)
@click.option(
    "--lmdb",
    is_flag=True,
    help="Write one LMDB of the blurred and one of the sharp pictures, as BasicSR reads them (extra: lmdb).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def unpack_command(data: str, out: str, layout: Any, lmdb: bool, as_json: bool) -> None:
    """Write shards as folders that other tools read.

    \b
    nafnet     SPLIT/input/KEY.png       SPLIT/target/KEY.png
    basicsr    SPLIT/lq/KEY.png          SPLIT/gt/KEY.png
    gopro      SPLIT/CLIP/blur/FRAME.png SPLIT/CLIP/sharp/FRAME.png, in the order of time

    SPLIT is train or val. Pictures are copied byte for byte. The JSON of each sample goes to SPLIT/json/.

    \b
    blursynth unpack data --out datasets/mine
    blursynth unpack data --out datasets/mine --layout basicsr --lmdb
    """
    from blursynth.exchange.unpack import unpack

    report = unpack(data, out, layout, lmdb=lmdb)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command("match", cls=Command, short_help="Write a recipe with your camera's noise and JPEG.")
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--out", required=True, metavar="FILE.toml", help="The recipe to write.")
@click.option(
    "--against",
    metavar="DATA",
    help="Pairs that make wrote: print how much they differ from the photos, and plot the noise of both.",
)
def match_command(photos: tuple[str, ...], out: str, against: str | None) -> None:
    """Measure the noise and JPEG quality of your photos, and write a recipe that gives them to the pairs.

    PHOTOS are files or folders. Take photos like those that you want to restore, as the camera wrote them. match prints the
    noise and its grain, JPEG quality and subsampling, the share of clipped pixels and the exposure times.

    \b
    blursynth match shots/ --out phone.toml
    blursynth make films/ --recipe phone.toml --out data
    blursynth match shots/ --out phone.toml --against data
    """
    from blursynth.exchange.match import match

    report = match(photos, out, against)
    say(str(report))
    sys.exit(report.exit_code)
