"""Is what lies beside the shards (dataset.json, samples.csv, recipe.toml...) what their sidecars say?"""

from __future__ import annotations

import contextlib
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blursynth import __version__
from blursynth.card.index import split_table, timm_info
from blursynth.common.untrusted import group, rows
from blursynth.recipe import Recipe
from blursynth.shards.schema import KEPT
from blursynth.shards.shard import file_sha256, shard_of
from blursynth.shards.table import NAME as TABLE

BESIDE = ("dataset.json", TABLE, "recipe.toml", "_info.json", "croissant.json")
AGAIN = "run the same make or pack again"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def index_problems(
    root: Path,
    names: list[str],
    held: dict[str, int],
    sides: dict[str, dict[str, Any]],
    table: dict[str, Any] | None,
) -> list[str]:
    """What is wrong with dataset.json and with what repeats it.

    names: of all shards; held: split -> samples that were found in them; sides: shard -> its sidecar, where that is sound;
    table: facts of samples.csv by the shards, None where the set is older than that.
    """
    path = root / "dataset.json"
    try:
        index = json.loads(path.read_bytes())
        listed = {
            s["file"].removesuffix(".tar") for split in index["splits"].values() for s in split["shards"]
        }
        counts = {name: split["samples"] for name, split in index["splits"].items()}
        complete = index["complete"]
    except FileNotFoundError:
        return [f"{path}: is not there; run the same make again to finish"]
    except _UNREADABLE as e:
        return [f"{path}: not a readable index ({type(e).__name__}: {e})"]
    problems = [f"{path}: lists {n}.tar, which is not there" for n in sorted(listed - set(names))]
    if complete is not True:
        problems.append(
            f"{path}: says that shards are missing; run the same make again (--retry-failed for failed ones)"
        )
    if counts.get("train") == 0:
        problems.append(
            f"{path}: no train sample was kept, so there is nothing to train on; loosen --gate or --window"
        )
    for split, n in held.items():
        if counts.get(split, 0) != n:
            problems.append(f"{path}: counts {counts.get(split, 0)} {split} samples, the shards hold {n}")
    problems += [
        f"{root / name}.json: is of another {what} than {path.name}: shards of two sets lie in one folder"
        for name, side in sides.items()
        for what, key in (("recipe", "recipe_sha256"), ("plan", "plan_sha256"), ("version", "version"))
        if side.get(key) != index.get(key)
    ]
    problems += _recipe_problems(root / "recipe.toml", index)
    if problems or sides.keys() != set(names):
        return problems
    splits, rejected = split_table({n: {"sha256": None} | side for n, side in sides.items()})
    whole = {s: facts for s, facts in index["splits"].items() if facts["shards"]}
    if whole != {s: facts for s, facts in splits.items() if facts["shards"]}:
        problems.append(f"{path}: its samples, bytes or checksums are not those of the sidecars; {AGAIN}")
    if index.get("rejected") != rejected:
        problems.append(f"{path}: counts other windows left out than the sidecars; {AGAIN}")
    if table and index.get("table") != table:
        problems.append(f"{path}: tells another {TABLE} than the shards; {AGAIN}")
    told = {(str(s.get("split")), str(s.get("rel"))): s.get("sha256") for s in rows(index, "sources")}
    read = {
        (n.partition("-")[0], rel): sha
        for n, side in sides.items()
        for rel, sha in group(side, "sources").items()
    }
    if wrong := sorted(rel for (split, rel), sha in read.items() if told.get((split, rel)) != sha):
        problems.append(f"{path}: names another {', '.join(wrong[:3])} than the sidecars; {AGAIN}")
    return problems + _repeated_problems(root, splits, table)


def _recipe_problems(path: Path, index: dict[str, Any]) -> list[str]:
    """``make --recipe`` and ``explain`` go by it; a packed set has none."""
    if "packed" in index:
        return []
    try:
        there = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{path}: is not there; run the same make again"]
    except (OSError, ValueError, RecursionError) as e:
        return [f"{path}: not a readable recipe ({e}); run the same make again"]
    made = {key: value for key, value in group(index, "recipe").items() if value is not None}
    differ = sorted(k for k in there.keys() | made.keys() if there.get(k) != made.get(k))
    if differ:
        return [
            f"{path}: is not the recipe of dataset.json ({', '.join(differ[:5])}); run the same make again"
        ]
    for named in filter(None, (KEPT.fullmatch(str(value)) for value in there.values())):
        file = path.with_name(named[0])
        with contextlib.suppress(OSError):
            if file_sha256(file).startswith(named["sha12"]):
                continue
        return [f"{file}: is not there, or not what its name says; run the same make again"]
    if index.get("version") == __version__:  # another version may have other keys
        with contextlib.suppress(ValidationError):
            if Recipe(**there).sha256 == index.get("recipe_sha256"):
                return []
        return [f"{path}: is not the recipe by which the shards were made; run the same make again"]
    return []


def _repeated_problems(root: Path, splits: dict[str, Any], table: dict[str, Any] | None) -> list[str]:
    """timm reads _info.json, hubs croissant.json: where they are there, they name these shards."""
    problems = []
    files = {s["file"]: s["sha256"] for split in splits.values() for s in split["shards"]}
    files |= {table["file"]: table["sha256"]} if table else {}
    for name in ("_info.json", "croissant.json"):
        try:
            held = json.loads((root / name).read_bytes())
            if name == "_info.json":
                sound = {s: v for s, v in held["splits"].items() if v["filenames"]} == timm_info(splits)[
                    "splits"
                ]
            else:
                told = {o["@id"]: o.get("sha256") for o in rows(held, "distribution")}
                sound = all(told.get(file) == sha256 for file, sha256 in files.items())
                sound = sound and all(file in files for file in told if shard_of(str(file)))
        except FileNotFoundError:
            continue
        except _UNREADABLE:
            sound = False
        if not sound:
            problems.append(f"{root / name}: does not name the shards that are there; {AGAIN}")
    return problems


def table_problems(path: Path, sha256: str) -> list[str]:
    """What is wrong with samples.csv, of which this is the checksum by the shards."""
    try:
        found = file_sha256(path)
    except FileNotFoundError:
        return [f"{path}: is not there; run the same make again to finish"]
    except OSError as e:
        return [f"{path}: {e.strerror or e}"]
    return (
        [] if found == sha256 else [f"{path}: its rows are not those of the shards; run the same make again"]
    )
