"""The dataset card: README.md beside the shards, for people and for hubs that read its front matter."""

from __future__ import annotations

from typing import Any

from blursynth import __version__
from blursynth.card.croissant import responsible, sharp_side
from blursynth.common.text import counted, human_bytes
from blursynth.recipe import Recipe

CARD_MARK = "<!-- dataset card by blursynth -->"
QUESTIONS = {
    "rai:dataCollection": "What is in it?",
    "rai:dataCollectionType": "How was it collected?",
    "rai:dataCollectionRawData": "Where is the raw data?",
    "rai:dataCollectionMissingData": "What is missing?",
    "rai:dataPreprocessingProtocol": "What was done to it?",
    "rai:dataUseCases": "What is it for?",
    "rai:dataBiases": "What are its biases?",
    "rai:dataLimitations": "What can it not show?",
    "rai:dataSocialImpact": "What harm can come of it?",
    "rai:personalSensitiveInformation": "Are there people in it?",
    "rai:dataAnnotationProtocol": "Who labelled it?",
    "rai:dataReleaseMaintenancePlan": "Can it be made again?",
}
"""A datasheet's questions (Gebru et al. 2021), by the RAI field that answers each."""


def _loading(recipe: Recipe, splits: list[str]) -> list[str]:
    """How to read the splits that hold shards; nothing where none does."""
    if not splits:
        return []
    first = "train" if "train" in splits else splits[0]
    files = ", ".join(f'"{s}": "{s}-*.tar"' for s in splits)
    return [
        "",
        "```python",
        "from glob import glob",
        "import webdataset as wds",
        f'for s in wds.WebDataset(sorted(glob("{first}-*.tar")), shardshuffle=False).decode("rgb"):',
        f'    blur, sharp, how = s["blur.{recipe.format}"], s["sharp.{recipe.format}"], s["json"]',
        "```",
        f'Or `datasets.load_dataset("webdataset", data_files={{{files}}})`.',
    ]


def dataset_card(recipe: Recipe, index: dict[str, Any]) -> str:
    """README.md as text, out of the recipe and what stands in dataset.json."""
    licences = sorted({str(d.get("licence")) for d in index["provenance"].values() if d.get("licence")})
    unknown = sorted({s["rel"] for s in index["sources"] if s["dataset"] not in index["provenance"]})
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
        f"Each sample of a shard: `KEY.blur.{recipe.format}` (input), `KEY.sharp.{recipe.format}` ({sharp_side(recipe)}), "
        "`KEY.json` (how it was made).",
    ]
    if recipe.store == "linear16":
        lines.append("`KEY.linear.png` is the blur in linear light, 16 bits, without noise.")
    if "flow" in recipe.labels:
        lines.append(
            "`KEY.flow.npy` is how far content moves over the exposure: float16 (H, W, 2), px, x right, y down."
        )
    if "mask" in recipe.labels:
        lines.append("`KEY.mask.png` is 255 where it moves more than 1 px, else 0.")
    lines.append("`samples.csv` has a row for each sample: clip, frames, shutter, blur, noise, score.")
    lines += _loading(recipe, [n for n, s in index["splits"].items() if s["shards"]])
    lines += ["", "## Provenance and licence", ""]
    for name, d in sorted(index["provenance"].items()):
        lines.append(f"- {name}: {d.get('home', 'home unknown')}; licence {d.get('licence', 'unknown')}")
    if unknown:
        lines.append(
            f"- {counted(len(unknown), 'photo' if recipe.stills else 'clip')} of no known data set: their licence is whatever their owner gave you ({', '.join(unknown[:5])}{'...' if len(unknown) > 5 else ''})"
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
    lines += ["", "## Datasheet", ""]
    for name, answer in responsible(recipe, index).items():
        text = "; ".join(answer) if isinstance(answer, list) else answer
        lines.append(f"- **{QUESTIONS[name]}** {text}")
    works = sorted({str(d["citation"]) for d in index["provenance"].values() if d.get("citation")})
    if works:
        lines += ["", "## Cite the sources", "", *(f"- {w}" for w in works)]
    return "\n".join(lines) + "\n"
