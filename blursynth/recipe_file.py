"""Recipes as files: the built-in ones, the user's TOML, and the resolved recipe beside the output."""

from __future__ import annotations

import contextlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from blursynth.recipe import Recipe, RecipeError, RunOptions

DEFAULT = "realistic"
"""The built-in recipe of a `make` that names none."""


def builtin_recipes() -> dict[str, Path]:
    """Name -> path of the recipes shipped in the ``pipelines`` package."""
    folder = Path(str(resources.files("blursynth.pipelines")))
    return {p.stem: p for p in sorted(folder.glob("*.toml")) if not p.stem.startswith("train-")}


def find_recipe(name: str) -> Path:
    """Path of a recipe given by built-in name or by file. Raises RecipeError."""
    known = builtin_recipes()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        raise RecipeError(f"no recipe named {name!r}; built in: {', '.join(known)}; or give a FILE.toml")
    if not path.is_file():
        raise RecipeError(f"{name}: no such recipe file")
    return path


def load_recipe(
    name: str | None = None, overrides: dict[str, Any] | None = None
) -> tuple[Recipe, RunOptions]:
    """Merge a recipe (name or file; DEFAULT where none is named) and overrides (the command line).

    Raises RecipeError.
    """
    path = find_recipe(name or DEFAULT)
    where = str(path)
    try:
        merged = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise RecipeError(f"{path}: not a readable TOML recipe: {e}") from None
    merged.setdefault("name", path.stem)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    where = where if name else "command line"
    merged.update(given)
    for key in (
        "window",
        "duty",
        "highlights",
        "noise",
        "jpeg",
    ):  # numbers are welcome where a range may stand
        if isinstance(merged.get(key), int | float) and not isinstance(merged[key], bool):
            with contextlib.suppress(OverflowError):  # a number of 400 digits: refused below, as it stands
                merged[key] = f"{merged[key]:g}"
    run_keys = set(RunOptions.model_fields)
    known = run_keys | set(Recipe.model_fields)
    for key in merged:
        if key not in known:
            where = "command line" if key in given else where
            raise RecipeError(f"{where}: unknown key {key!r}{_closest(key, known)}")
    try:
        recipe = Recipe(**{k: v for k, v in merged.items() if k not in run_keys})
        run = RunOptions(**{k: v for k, v in merged.items() if k in run_keys})
    except ValidationError as e:
        raise RecipeError(f"{where}: {explain_validation(e)}") from None
    return recipe, run


def explain_validation(e: ValidationError) -> str:
    """One line for a person out of pydantic's report."""
    parts = []
    for err in e.errors():
        key = ".".join(str(p) for p in err["loc"]) or "recipe"
        key = key if key.isprintable() else ascii(key)
        got = f", got {err['input']!r}" if err["loc"] else ""
        parts.append(f"{key}: {err['msg'].removeprefix('Value error, ')}{got}")
    return "; ".join(parts)


def _closest(key: str, known: set[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, sorted(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else f"; known: {', '.join(sorted(known))}"


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML (unset keys left out), as it lies in DATA/recipe.toml."""
    d = {k: v for k, v in recipe.model_dump().items() if v is not None}
    return f"# resolved recipe, sha256 {recipe.sha256}\n" + tomli_w.dumps(d)
