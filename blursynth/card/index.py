"""What is written beside the shards when a run ends: dataset.json, timm's _info.json, the dataset card.

All from the sidecars in shard order: no times, hosts or absolute paths, so that equal data has an equal index.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from blursynth import __version__
from blursynth.common.atomic import write_atomic
from blursynth.common.text import human_bytes
from blursynth.run.folder import CARD_MARK, Output
from blursynth.run.plan import Plan
from blursynth.shards.shard import SCHEMA, dump_json


def write_index(
    output: Output,
    plan: Plan,
    sides: dict[str, dict[str, Any]],
    unused: list[tuple[str, str, str]],
    datasets: dict[str, Any],
) -> dict[str, Any]:
    """Write the three files; returns what stands in dataset.json.

    Args:
        sides: shard -> sidecar of the finished shards.
        unused: sources that gave nothing: (what, reason, detail).
        datasets: name -> catalogue facts (home, licence...) of the known data sets among the sources.
    """
    splits: dict[str, Any] = {}
    rejected: Counter[str] = Counter()
    for name in plan.shards:
        split = splits.setdefault(name.partition("-")[0], {"samples": 0, "bytes": 0, "shards": []})
        side = sides.get(name)
        if side is None:
            continue
        rejected.update(side["counts"]["rejected"])
        if side["samples"]:
            split["shards"].append(
                {
                    "file": f"{name}.tar",
                    "samples": side["samples"],
                    "bytes": side["bytes"],
                    "sha256": side["sha256"],
                }
            )
            split["samples"] += side["samples"]
            split["bytes"] += side["bytes"]
    index: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "recipe_sha256": plan.recipe.sha256,
        "plan_sha256": plan.sha256,
    }
    index |= {
        "complete": len(sides) == len(plan),
        "splits": splits,
        "rejected": dict(sorted(rejected.items())),
    }
    index |= {"recipe": plan.recipe.model_dump(), "sources": [p.identity() for p in plan.clips]}
    index |= {
        "not_used": [{"source": w, "reason": r, "detail": _relative(d)} for w, r, d in unused],
        "provenance": datasets,
    }
    write_atomic(output.path / "_info.json", dump_json(_timm_info(splits)))
    if output.owns_card():
        write_atomic(output.path / "README.md", _card(plan, index).encode())
    write_atomic(output.path / "dataset.json", dump_json(index))  # last: it says that the others are there
    return index


def _relative(detail: str) -> str:
    """The file's own name for an absolute path in a message: the index travels, the folder above does not."""
    words = [
        Path(w.rstrip(":;,")).name + w[len(w.rstrip(":;,")) :] if w.startswith("/") else w
        for w in detail.split(" ")
    ]
    return " ".join(words)


def _timm_info(splits: dict[str, Any]) -> dict[str, Any]:
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


def _card(plan: Plan, index: dict[str, Any]) -> str:
    recipe = plan.recipe
    licences = sorted({str(d.get("licence")) for d in index["provenance"].values() if d.get("licence")})
    unknown = sorted({p.clip.rel for p in plan.clips if p.clip.dataset not in index["provenance"]})
    front = [
        "---",
        "tags: [deblurring, motion-blur, webdataset, image-to-image]",
        f"pretty_name: {recipe.name} (Blursynth)",
        "---",
        CARD_MARK,
    ]
    lines = [*front, f"# {recipe.name}: blurred and sharp pairs by Blursynth {__version__}", ""]
    lines += ["| split | samples | shards | size |", "|---|---|---|---|"]
    lines += [
        f"| {n} | {s['samples']} | {len(s['shards'])} | {human_bytes(s['bytes'])} |"
        for n, s in index["splits"].items()
    ]
    lines += [
        "",
        "Each sample of a shard: `KEY.blur.%s` (input), `KEY.sharp.%s` (its centre frame), `KEY.json` (how it was made)."
        % ((recipe.format,) * 2),
    ]
    if recipe.store == "linear16":
        lines.append("`KEY.linear.png` is the blur in linear light, 16 bits, without noise.")
    lines += ["", "```python", "import webdataset as wds"]
    glob = f"train-{{000000..{max(len(index['splits'].get('train', {}).get('shards', [])) - 1, 0):06d}}}.tar"
    lines += [
        f'for s in wds.WebDataset("{glob}", shardshuffle=False).decode("rgb"):',
        f'    blur, sharp, how = s["blur.{recipe.format}"], s["sharp.{recipe.format}"], s["json"]',
        "```",
    ]
    lines += [
        'Or `datasets.load_dataset("webdataset", data_files={"train": "train-*.tar", "val": "val-*.tar"})`.',
        "",
        "## Provenance and licence",
        "",
    ]
    for name, d in sorted(index["provenance"].items()):
        lines.append(f"- {name}: {d.get('home', 'home unknown')}; licence {d.get('licence', 'unknown')}")
    if unknown:
        lines.append(
            f"- {len(unknown)} clips of no known data set: their licence is whatever their owner gave you ({', '.join(unknown[:5])}{'...' if len(unknown) > 5 else ''})"
        )
    if licences:
        lines.append(
            f"\nThe pairs derive from these sources and stand under the same terms: {'; '.join(licences)}."
        )
    lines += [
        "",
        f"Recipe `{recipe.name}`"
        + (f" ({recipe.cite})" if recipe.cite else "")
        + f", sha256 `{recipe.sha256}`; all settings are in `recipe.toml`.",
        "",
    ]
    if index["rejected"]:
        lines.append("Rejected windows: " + ", ".join(f"{k} {n}" for k, n in index["rejected"].items()) + ".")
    lines.append(
        "No split shares a source clip with another. `blursynth verify` checks all of it; `blursynth explain . KEY` rebuilds a sample."
    )
    return "\n".join(lines) + "\n"
