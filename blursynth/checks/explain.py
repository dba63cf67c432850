"""``explain``: what a sample was made of, and proof: it is made again from the source and compared byte for byte."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from blursynth import __version__
from blursynth.checks.contact_sheet import contact_sheet
from blursynth.checks.origin import Missing, Origin
from blursynth.checks.shard_files import ShardFiles
from blursynth.common.errors import explain_validation
from blursynth.recipe import Recipe, RecipeError, files_beside
from blursynth.run.folder import OutputError
from blursynth.run.outcome import PlanClip, Rejected, Run, WindowSpec
from blursynth.run.report import RunLog
from blursynth.run.task import default_synthesizer, sample_members
from blursynth.run.windows import read_windows
from blursynth.shards.picture import decode_image
from blursynth.shards.schema import KEPT, parse_sample_json
from blursynth.shards.shard import ShardError, read_shard
from blursynth.video.clip import Frame, read_frames


@dataclass
class Explanation:
    key: str
    shard: str
    meta: dict[str, Any]
    source: str | None = None  # absolute path, where it was found
    frames: list[dict[str, Any]] = field(default_factory=list)  # number, time_s, weight
    rebuilt: bool | None = None  # True: every byte equal; None: could not be made again
    note: str = ""
    picture: str | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self.rebuilt else 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        m, s = self.meta, self.meta["source"]
        lines = [
            f"{self.key} in {self.shard}",
            f"  source    {s['path']} ({s['clip']}), sha256 {s['sha256'][:16]}..., {s['fps'] or '?'} fps",
        ]
        if s["first"] is not None:
            lines.append(f"  frames    {s['first']}..{s['last']}, target {s['target']}")
        for layer in s.get("layers") or ():
            lines.append(f"  layer     {layer['path']} ({layer['clip']}), sha256 {layer['sha256'][:16]}...")
        for f in self.frames:
            time = f"{f['time_s']:.4f} s" if f["time_s"] is not None else "no time"
            mark = "  <- sharp" if f["number"] == s["target"] else ""
            lines.append(f"    {f['number']:6d}  {time}  weight {f['weight']:.4f}{mark}")
        for group in ("exposure", "camera", "flow", "quality"):
            lines.append(f"  {group:9s} " + ", ".join(f"{k} {_short(v)}" for k, v in m[group].items()))
        lines.append(
            f"  {'packed by' if 'packed' in m else 'made by  '} blursynth {m['version']}, seed {_short(m['seed'])}, recipe {m['recipe_sha256'][:16]}..."
        )
        verdict = {True: "rebuilt: every byte is equal", False: "rebuilt: DIFFERS", None: "not rebuilt"}[
            self.rebuilt
        ]
        lines.append(f"  {verdict}" + (f" ({self.note})" if self.note else ""))
        if self.picture:
            lines.append(f"  picture   {self.picture}")
        return "\n".join(lines)


def explain(
    data: str | Path, key: str, src: list[str] | None = None, picture: str | None = None
) -> Explanation:
    """Find a sample, make it again from its source, compare.

    Args:
        data: a folder of shards, or the URL of one: its shards are fetched one by one until the key is found.
        src: where the sources lie now; default: where the newest ``make`` found them.
        picture: PNG file for a contact sheet: the window's frames, blurred, sharp.

    Raises:
        OutputError: no such folder or key.
        ShardError, RecipeError: what lies there cannot be trusted.
    """
    files = ShardFiles(data)
    shard, sample = find_sample(files, key)
    try:
        parse_sample_json(sample["json"])
    except (KeyError, ValueError) as e:
        raise ShardError(f"{files.label}/{shard}.tar: {key}.json: {e}") from None
    meta = json.loads(sample["json"])
    told = Explanation(key, shard, meta)
    if "packed" in meta:
        told.note = "a packed pair: it was not made here, and how it was taken is not known"
        return told
    with files.at_hand("recipe.toml", "run.jsonl", *filter(KEPT.fullmatch, files.names)) as root:
        recipe = read_recipe(root)
        start = RunLog.last_start(root / "run.jsonl") or {}
        _make_again(told, sample, recipe, start, src, picture)
    return told


def _make_again(
    told: Explanation,
    sample: dict[str, Any],
    recipe: Recipe,
    start: dict[str, Any],
    src: list[str] | None,
    picture: str | None,
) -> None:
    """Find the source, fill in what it tells, and compare the sample with one made anew."""
    key, meta = told.key, told.meta
    made_from = start.get("src")
    srcs = src or ([s for s in made_from if isinstance(s, str)] if isinstance(made_from, list) else [])
    layers = meta["source"].get("layers") or ()
    try:
        origin = Origin(srcs, recipe)
        clip, *donated = (origin.clip(s) for s in (meta["source"], *layers))
    except Missing as e:
        told.note = f"{e}; tell with --src where the source lies now"
        return
    told.source = clip.info.path
    s = meta["source"]
    if clip.info.frames and s["last"] >= clip.info.frames:
        told.rebuilt, told.note = False, f"its window ends at frame {s['last']} of {clip.info.frames}"
        return
    tile = meta.get("tile")
    window = str(tile.get("window", key)) if isinstance(tile, dict) else key
    still = clip.info.kind == "still"
    prefix, _, draw = window.rpartition("_s") if still else (window.rsplit("_", 2)[0], "", "0")
    source = PlanClip(clip, told.shard.partition("-")[0], prefix, s["sha256"])
    donors = tuple(PlanClip(d, source.split, "", layer["sha256"]) for d, layer in zip(donated, layers))
    spec = WindowSpec(0, s["first"], s["last"], 2**31, int(draw), donors)
    from blursynth.exposure.shutter import load_profile

    frames, reason, times = _read(source, spec)
    weights = frame_weights(meta, load_profile(recipe.profile), recipe.source_duty)
    told.frames = [
        {"number": s["first"] + i, "time_s": times.get(s["first"] + i), "weight": float(w)}
        for i, w in enumerate(weights)
    ]
    if reason is not None:
        told.rebuilt, told.note = False, f"its frames cannot be read as they were: {reason}"
        return
    maker = default_synthesizer(recipe, start.get("rife_weights"))
    try:
        again = dict(sample_members(recipe, source, spec, frames, maker)).get(key, {})
    except Rejected:
        again = {}
    _compare(told, sample, again)
    if picture is not None:
        told.picture = picture
        contact_sheet(Path(picture), [f.rgb for f in frames if f.rgb is not None], s, sample)


def find_sample(files: ShardFiles, key: str) -> tuple[str, dict[str, Any]]:
    """(shard name, members) of a sample. Raises OutputError when there is none."""
    some: list[str] = []
    for shard in files.shards():
        if f"{shard}.tar" not in files.names:
            continue  # all its windows were rejected
        with files.at_hand(f"{shard}.tar") as root:
            for sample in read_shard(root / f"{shard}.tar"):
                if sample["__key__"] == key:
                    return shard, sample
                if len(some) < 3:
                    some.append(sample["__key__"])
    raise OutputError(f"{files.label}: no sample {key}; keys look like {', '.join(some)}")


def read_recipe(root: Path) -> Recipe:
    """The recipe that the shards in ``root`` were made by. Raises RecipeError."""
    path = root / "recipe.toml"
    try:
        return Recipe(**files_beside(tomllib.loads(path.read_text(encoding="utf-8")), root))
    except ValidationError as e:
        raise RecipeError(explain_validation(e, str(path))) from None
    except OSError as e:
        raise RecipeError(
            f"{path}: {e.strerror}; it belongs beside the shards, where make wrote it"
        ) from None
    except (ValueError, TypeError, RecursionError) as e:
        raise RecipeError(f"{path}: not a readable recipe ({e})") from None


def _read(source: PlanClip, spec: WindowSpec) -> tuple[list[Frame], str | None, dict[int, float | None]]:
    times = {f.index: f.time_s for f in read_frames(source.clip.info, spec.first, spec.last)}
    ((_, frames, fault),) = list(read_windows(Run(source, (spec,))))
    return frames, fault.reason if fault else None, times


def frame_weights(
    meta: dict[str, Any], profile: np.ndarray | None = None, source_duty: float = 0.0
) -> np.ndarray:
    """(N,) share of the light that each source frame of the window stands for, in the middle row; sums to 1.

    Args:
        profile: weight of the light over the exposure, as ``shutter.load_profile`` gives it; None for a box.
        source_duty: the recipe's, which the stated exposure counts in; no frame more is weighed for it.
    """
    e, s = meta["exposure"], meta["source"]
    n = s["last"] - s["first"] + 1
    if e["interp"] == "none":
        return np.full(n, 1 / n)
    # JSON's duty is of the stride; the exposure's length in frames is that times the stride.
    length = min((e["duty"] or 0) * e["stride"] - source_duty, n - 1)
    if s["fps"]:
        length = min(length, n - 1 - e["readout_ms"] / 1000 * s["fps"])
    u = (np.arange(4096) + 0.5) / 4096
    t = (n - 1) / 2 + length * (u - 0.5)
    light = np.ones_like(u) if profile is None else np.interp(u, np.linspace(0, 1, len(profile)), profile)
    # Between two frames the light is shared by nearness: each frame's weight is a tent over its neighbours.
    w = np.array([(light * np.maximum(0, 1 - np.abs(t - i))).sum() for i in range(n)])
    return w / w.sum()


def _compare(told: Explanation, sample: dict[str, Any], again: dict[str, bytes]) -> None:
    old = {k: v for k, v in sample.items() if k != "__key__"}
    differ = sorted(k for k in old.keys() | again.keys() if old.get(k) != again.get(k))
    told.rebuilt = not differ
    notes = []
    if differ:
        notes.append("differs in " + ", ".join(differ))
        for k in differ:
            if k in old and k in again and k != "json":
                where = f"{told.shard}.tar: {told.key}.{k}"
                a, b = (decode_image(x[k], where).astype(int) for x in (old, again))
                same_shape = a.shape == b.shape
                notes.append(
                    f"{k}: {f'largest difference {abs(a - b).max()}' if same_shape else 'another size'}"
                )
        if told.meta["version"] != __version__:
            notes.append(f"made by version {told.meta['version']}, this is {__version__}")
    told.note = "; ".join(notes)


def _short(v: Any) -> str:
    if isinstance(v, float):
        return f"{v:.4g}"
    return "-" if v is None else str(v) if len(str(v)) < 80 else f"({len(str(v))} characters)"
