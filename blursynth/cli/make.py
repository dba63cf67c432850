"""``blursynth make`` and ``recipes``: the options are the recipe's keys and the run options, with their own texts."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
import types
from typing import Any, Literal, get_args, get_origin

import click

from blursynth.common.command import Command, say
from blursynth.common.memory import importing
from blursynth.common.text import hanging
from blursynth.recipe import DEFAULT, Recipe, RunOptions, builtin_recipes, find_recipe

# A group of the help begins at these keys of the recipe and goes on to the next of them.
GROUP_FROM = {
    "window": "Frames",
    "interp": "Light",
    "crf": "Camera",
    "format": "Files",
    "gate": "Frames",
    "device": "Running",
}
GROUP_OF = {"shard_samples": "Files", "src": "Files", "out": "Files", "rife_weights": "Light"}
GROUPS = ("Files", "Frames", "Light", "Camera", "Running")
METAVARS = {
    "src": "PATH",
    "out": "DIR|URL",
    "window": "N|N-M|hint",
    "frames": "A-B",
    "layers": "N|LO-HI",
    "tile": "PX",
    "profile": "box|triangle|FILE.npy",
    "duty": "S|LO-HI",
    "blur_px": "PX|LO-HI",
    "shake": "PX|LO-HI",
    "shake_about": "instant|centre",
    "labels": "flow,mask",
    "rife_weights": "FILE",
    "crf": "auto|srgb|pq|hlg|linear|gamma2.2|gamma1-2.6|display|FILE.npy",
    "crf_out": "CURVE",
    "highlights": "off|A|LO-HI|rsblur|auto",
    "noise": "off|rsblur|realblur|iso|restore|restore+CAMERA|B1,B2",
    "jpeg": "off|Q|LO-HI",
    "gate": "off|default|NAME<VALUE,...",
    "engine": "local|dask://HOST:PORT",
}


class RecipeOption(click.Option):
    """An option under one of the help's headings."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Grouped(Command):
    """Shows options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading in GROUPS:
            rows = [
                row
                for p in self.get_params(ctx)
                if isinstance(p, click.Option)
                and getattr(p, "group", "Running") == heading
                and (row := p.get_help_record(ctx))
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


def generated_options() -> list[click.Parameter]:
    """An option for every key of the recipe and every run option."""
    usual = tomllib.loads(find_recipe(DEFAULT).read_text(encoding="utf-8"))
    options: list[click.Parameter] = []
    group = "Frames"
    for model in (Recipe, RunOptions):
        for key, field in model.model_fields.items():
            if key in ("name", "cite"):
                continue
            group = GROUP_FROM.get(key, group)
            flag = field.annotation is bool
            known = field.get_default(call_default_factory=True)
            value = usual.get(key, known)
            told, _, otherwise = str(field.description).partition("; default: ")
            usually = otherwise if value is None or value in ("", []) else value
            options.append(
                RecipeOption(
                    [f"--{key.replace('_', '-')}"],
                    group=GROUP_OF.get(key, group),
                    type=_click_type(field.annotation),
                    is_flag=flag,
                    default=None,
                    multiple=key == "src",
                    metavar=METAVARS.get(key) or _choices(field.annotation),
                    help=told[0].upper()
                    + told[1:]
                    + "."
                    + ("" if flag or (not usually and usually != 0) else f"  [default: {usually}]"),
                )
            )
    return sorted(options, key=lambda p: p.name not in ("src", "out"))


def _click_type(annotation: Any) -> Any:
    """What click converts; the recipe's own checks do the rest, for files and Python too."""
    kinds = {a for a in (get_args(annotation) or (annotation,)) if a is not types.NoneType}
    if kinds == {int}:
        return int
    if kinds == {float}:
        return float
    return bool if kinds == {bool} else str


def _choices(annotation: Any) -> str | None:
    return "|".join(map(str, get_args(annotation))) if get_origin(annotation) is Literal else None


@click.command(
    "make",
    cls=Grouped,
    params=generated_options(),
    epilog=f"Defaults are those of the recipe {DEFAULT}. 'blursynth recipes' lists the others; 'blursynth recipes gopro' "
    "shows what gopro sets.",
)
@click.argument("paths", metavar="[SRC]...", nargs=-1)
@click.option(
    "--recipe",
    cls=RecipeOption,
    group="Files",
    metavar="NAME|FILE.toml",
    help=f"Built-in recipe, or a file of your own. Options on the command line win over it.  [default: {DEFAULT}]",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def make_command(
    paths: tuple[str, ...],
    src: tuple[str, ...],
    out: str | None,
    recipe: str | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make blurred and sharp pairs from film, as WebDataset shards.

    SRC: videos, folders or globs. If a run stops, give the same command again: it goes on where it stopped.

    \b
    blursynth make clip.mp4
    blursynth make films/ --out data --dry-run
    blursynth make GOPRO_Large_all --recipe gopro --out pairs/gopro
    blursynth make photos/ --stills --shake 4-30 --tile 256
    """
    with importing():
        from blursynth.run.make import make

    summary = make([*paths, *src] or None, out, recipe, quiet=quiet, **options)
    say(json.dumps(summary.facts(), allow_nan=False) if as_json else summary)
    if not as_json and not summary.dry_run and summary.exit_code == 0:
        say(f"next: blursynth {'verify' if '://' in summary.out else 'inspect'} {shlex.quote(summary.out)}")
    sys.exit(summary.exit_code)


@click.command("recipes", cls=Command)
@click.argument("name", required=False)
def recipes_command(name: str | None) -> None:
    """List the built-in recipes, or show what one of them sets.

    NAME: a built-in recipe or a FILE.toml. Example: blursynth recipes gopro
    """
    if name is None:
        known = {n: tomllib.loads(p.read_text(encoding="utf-8")) for n, p in builtin_recipes().items()}
        width = max(map(len, known))
        for n, keys in known.items():
            mark = " (the default)" if n == DEFAULT else ""
            say(hanging(f"{n:{width}}  ", str(keys.get("cite", "")) + mark))
        say("\nblursynth recipes NAME shows one; make --recipe NAME uses it.")
        return
    keys = tomllib.loads(find_recipe(name).read_text(encoding="utf-8"))
    fields = Recipe.model_fields | RunOptions.model_fields
    say(hanging(f"{name}: ", str(keys.get("cite", ""))))
    for key, value in keys.items():
        if key not in ("name", "cite"):
            about = fields[key].description if key in fields else "unknown key"
            say(hanging(f"  --{key.replace('_', '-')} {value}  ", f"{about}"))
    say("A setting that is not listed has the default of its key; docs/recipes.md lists those.")
