"""``blursynth pack``, ``unpack`` and ``match``: the field's own pairs in, shards out for its tools, photos to a recipe."""

from __future__ import annotations

import sys
from typing import Any

import click

from blursynth.common.command import Command, say


@click.command("pack", cls=Command)
@click.argument("root", required=False, metavar="[ROOT]")
@click.option(
    "--blur", metavar="DIR", help="Folder of blurred pictures, together with --sharp, instead of ROOT."
)
@click.option("--sharp", metavar="DIR", help="Folder of sharp pictures with the same names or numbers.")
@click.option("--out", default="data", show_default=True, metavar="DATA", help="Folder of the shards.")
@click.option(
    "--val-fraction", default=0.1, show_default=True, type=float, help="Share of the scenes that go to val."
)
@click.option("--gamma", is_flag=True, help="Take GoPro's blur_gamma instead of blur.")
@click.option(
    "--seed", default=0, show_default=True, type=int, help="Seed that draws which scenes go to val."
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

    ROOT is a folder of GoPro, RealBlur, REDS, BSD, DVD, RSBlur, NAFNet (input, target) or BasicSR (lq, gt), or a list file
    of two paths a line. Files are copied as they are where they are PNG or lossless WebP. What is not known of a pair is
    null in its JSON.

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
    help="Whose folders to write; see above.",
)
@click.option(
    "--lmdb",
    is_flag=True,
    help="Write one LMDB for each side, as BasicSR reads it (extra: lmdb).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def unpack_command(data: str, out: str, layout: Any, lmdb: bool, as_json: bool) -> None:
    """Write shards as folders that other tools read.

    \b
    nafnet     SPLIT/input/KEY.png       SPLIT/target/KEY.png
    basicsr    SPLIT/lq/KEY.png          SPLIT/gt/KEY.png
    gopro      SPLIT/CLIP/blur/FRAME.png SPLIT/CLIP/sharp/FRAME.png, in the order of time

    Pictures are copied byte for byte. The JSON of each sample goes to json/ beside them.
    """
    from blursynth.exchange.unpack import unpack

    report = unpack(data, out, layout, lmdb=lmdb)
    say(report.to_json() if as_json else str(report))


@click.command("match", cls=Command)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--out", required=True, metavar="FILE.toml", help="The recipe to write.")
@click.option(
    "--against", metavar="DATA", help="Shards that make wrote; print how far they are from the photos."
)
def match_command(photos: tuple[str, ...], out: str, against: str | None) -> None:
    """Measure a camera's noise and JPEG in its photos and write a recipe with them.

    PHOTOS are files or folders, best the blurry ones that are to be restored, as the camera wrote them. Measures the noise
    and its grain, the JPEG's quality and subsampling, the clipped share and the exposure times. With --against, prints how
    far a made set is from the photos and draws the noise of both beside FILE.toml.

    \b
    blursynth match shots/ --out phone.toml
    blursynth make --src clips --recipe phone.toml --out data
    blursynth match shots/ --out phone.toml --against data
    """
    from blursynth.exchange.match import match

    report = match(photos, out, against)
    say(str(report))
    sys.exit(report.exit_code)
