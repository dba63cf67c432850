"""What is written beside the shards when a run ends: dataset.json, samples.csv, timm's _info.json, Croissant, the card.

All from the sidecars in shard order: no times, hosts or absolute paths, so that equal data has an equal index.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blursynth import __version__
from blursynth.card.croissant import croissant
from blursynth.card.dataset_card import dataset_card
from blursynth.common.atomic import write_atomic
from blursynth.common.text import printable
from blursynth.recipe import Recipe
from blursynth.shards.schema import SCHEMA
from blursynth.shards.shard import dump_json
from blursynth.shards.table import write_table


@dataclass(frozen=True)
class Made:
    """A data set as whoever made it knows it."""

    recipe: Recipe
    plan_sha256: str
    shards: dict[
        str, dict[str, Any] | None
    ]  # every planned shard in order -> its sidecar; None: not finished
    sources: list[dict[str, Any]]  # facts of each clip that was used
    unused: list[dict[str, str]]  # source, reason, detail of what gave nothing
    provenance: dict[
        str, Any
    ]  # name -> catalogue facts (home, licence...) of the known data sets among the sources
    roots: Sequence[str] = ()  # where the sources lay, absolute: no such path goes into the index


def write_index(folder: Path, made: Made, rows: Iterable[str], card: bool = True) -> dict[str, Any]:
    """Write the files, the README.md where ``card``; returns what stands in dataset.json.

    rows: of samples.csv, those of a finished shard at a time, in order.
    """
    index = describe(made) | {"table": write_table(folder, rows)}
    write_atomic(folder / "_info.json", dump_json(timm_info(index["splits"])))
    if card:
        write_atomic(folder / "README.md", printable(dataset_card(made.recipe, index)).encode())
    write_atomic(folder / "croissant.json", dump_json(croissant(made.recipe, index)))
    write_atomic(folder / "dataset.json", dump_json(index))  # last: it says that the others are there
    return index


def describe(made: Made) -> dict[str, Any]:
    """What stands in dataset.json."""
    splits, rejected = split_table(made.shards)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "recipe_sha256": made.recipe.sha256,
        "plan_sha256": made.plan_sha256,
        "complete": all(side is not None for side in made.shards.values()),
        "splits": splits,
        "rejected": rejected,
        "recipe": made.recipe.model_dump(),
        "sources": made.sources,
        "not_used": [
            {k: _relative(below(v, made.roots)) if k != "reason" else v for k, v in u.items()}
            for u in made.unused
        ],
        "provenance": made.provenance,
    }


def split_table(shards: dict[str, dict[str, Any] | None]) -> tuple[dict[str, Any], dict[str, int]]:
    """Split -> samples, bytes and shards; and rejects by reason, out of the sidecars in order (None: not finished)."""
    splits: dict[str, Any] = {}
    rejected: Counter[str] = Counter()
    for name, side in shards.items():
        split = splits.setdefault(name.partition("-")[0], {"samples": 0, "bytes": 0, "shards": []})
        if side is None:
            continue
        rejected.update(side["counts"]["rejected"])
        if side["samples"]:
            facts = {k: side[k] for k in ("samples", "bytes", "sha256")}
            split["shards"].append({"file": f"{name}.tar", **facts})
            split["samples"] += side["samples"]
            split["bytes"] += side["bytes"]
    return splits, dict(sorted(rejected.items()))


def below(text: str, roots: Iterable[str]) -> str:
    """A message without what stands above the sources: a file is named by its path below its source."""
    for root in sorted(roots, key=len, reverse=True):
        if name := Path(root).name:
            start = rf"(?<![^\s(]){re.escape(root)}"
            text = re.sub(f"{start}/", "", text)
            text = re.sub(rf"{start}(?=[\s:;,.()]|$)", name.replace("\\", r"\\"), text)
    return text


def _relative(detail: str) -> str:
    """The file's own name for an absolute path in a message: the index travels, the folder above does not."""
    words = [
        Path(w.rstrip(":;,")).name + w[len(w.rstrip(":;,")) :] if w.startswith("/") else w
        for w in detail.split(" ")
    ]
    return " ".join(words)


def timm_info(splits: dict[str, Any]) -> dict[str, Any]:
    """timm.data.readers.reader_wds: splits -> name, num_samples, filenames, shard_lengths."""
    return {
        "splits": {
            name: {
                "name": name,
                "num_samples": s["samples"],
                "filenames": [x["file"] for x in s["shards"]],
                "shard_lengths": [x["samples"] for x in s["shards"]],
            }
            for name, s in splits.items()
            if s["shards"]
        }
    }
