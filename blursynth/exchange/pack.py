"""``pack``: finished pairs, as the field keeps them, into shards. Bytes are kept; what is not known of a pair is null."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blursynth import __version__
from blursynth.card.dataset_card import CARD_MARK
from blursynth.card.index import split_table, timm_info
from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UsageError
from blursynth.common.progress import Meter
from blursynth.common.text import counted, human_bytes
from blursynth.run.folder import Output, OutputError
from blursynth.run.plan import key_prefixes
from blursynth.shards.layouts import find_pairs, match_folders
from blursynth.shards.partners import Pair, PairSet, Split, report
from blursynth.shards.picture import MAX_PIXELS, decode_image, encode_image, image_size
from blursynth.shards.schema import SCHEMA
from blursynth.shards.shard import SHARD_NAME, ShardError, ShardWriter, dump_json, read_sidecar
from blursynth.shards.store import require_local

SHARDS_AT_LEAST = 16  # where there are enough pairs: readers share shards
SHARD_SAMPLES_MAX = 100
UNKNOWN: dict[str, Any] = {
    "exposure": dict.fromkeys(
        ("window", "stride", "fps_up", "interp", "profile", "shutter_ms", "duty", "readout_ms", "substeps")
    ),
    "camera": dict.fromkeys(("crf", "highlights", "noise")),
    "flow": dict.fromkeys(("median_px", "p95_px", "max_px", "fb_error_px", "occluded")),
    "quality": {"score": None, "flags": []},
}
"""What nobody wrote down when the pair was taken."""


@dataclass
class PackReport:
    """What was packed; ``failed`` are pairs that could not be used, ``notes`` what was not taken for a pair."""

    data: str
    splits: dict[str, int] = field(default_factory=dict)
    scenes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    copied: int = 0  # pictures whose bytes are the file's own
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        total = sum(self.splits.values())
        lines = [f"note: {n}" for n in self.notes] + [f"left out: {f}" for f in self.failed]
        parts = ", ".join(
            f"{n} {s} ({counted(self.scenes[s], 'scene')})" for s, n in sorted(self.splits.items())
        )
        lines.append(
            f"{self.data}: {counted(total, 'pair')} ({parts}), {human_bytes(self.bytes)}; {self.copied} of {2 * total} pictures copied byte for byte"
        )
        if self.failed:
            lines.append(f"{counted(len(self.failed), 'pair')} left out")
        lines.append(
            f"look at it: blursynth inspect {self.data}   train on it: deblur-train fit --shards {self.data}"
        )
        return "\n".join(lines)


class _Unusable(Exception):
    """A pair that cannot be packed, and why."""


def pack(
    root: str | Path | None = None,
    out: str | Path = "data",
    *,
    blur: str | Path | None = None,
    sharp: str | Path | None = None,
    val_fraction: float = 0.1,
    gamma: bool = False,
    seed: int = 0,
    quiet: bool = True,
) -> PackReport:
    """Write finished pairs as shards, schema 1; the same call again writes the same bytes.

    PNG of 8 or 16 bits and lossless WebP are copied, anything else is decoded and stored as PNG. The scene is what a
    split never divides: ``val_fraction`` of the scenes go to val, unless the layout has official splits. Scenes that share
    a sharp picture stay together.

    Args:
        root: a folder in one of the layouts of ``shards.layouts``, or a list file.
        blur, sharp: two folders instead, with files of equal names or numbers.
        gamma: take GoPro's ``blur_gamma`` instead of ``blur``.

    Raises:
        UsageError, LayoutError: nothing to pack, or ``out`` holds something else.
    """
    if (root is None) == (blur is None or sharp is None) or (blur is None) != (sharp is None):
        raise UsageError("give either ROOT, or both --blur DIR and --sharp DIR")
    if not 0 <= val_fraction < 1:
        raise UsageError(f"--val-fraction must be at least 0 and below 1, got {val_fraction}")
    found = match_folders(str(blur), str(sharp)) if root is None else find_pairs(root, gamma)
    base = Path(str(blur)) if root is None else Path(root)
    out = Path(require_local(str(out), "pack"))
    output = Output(out)
    splits = _assign(found.pairs, val_fraction, seed)
    plan = _Plan(
        found,
        base if base.is_dir() else base.parent,
        splits,
        {"gamma": gamma, "val_fraction": val_fraction, "seed": seed},
    )
    with output.lock():
        _refuse_mix(out, plan)
        for part in out.glob("*.part"):
            part.unlink(missing_ok=True)
        return _write(output, plan, quiet)


class _Plan:
    """Which pair stands in which shard under which key: a function of the files' names, sizes and the settings."""

    def __init__(
        self, found: PairSet, base: Path, splits: dict[str, Split], settings: dict[str, Any]
    ) -> None:
        self.found, self.base, self.splits, self.settings = found, base, splits, settings
        names = [
            (f"{p.scene}_{p.name}" if p.scene != p.name else p.name, f"{p.scene}/{p.name}")
            for p in found.pairs
        ]
        keys = key_prefixes([(name.replace("/", "_"), rel) for name, rel in names])
        self.keys = {rel: keys[rel] for _, rel in names}
        self.shards: dict[str, list[Pair]] = {}
        for split in ("train", "val"):
            mine = _mixed([p for p in found.pairs if splits[p.scene] == split])
            size = min(max(-(-len(mine) // SHARDS_AT_LEAST), 1), SHARD_SAMPLES_MAX)
            for n, at in enumerate(range(0, len(mine), size)):
                self.shards[f"{split}-{n:06d}"] = mine[at : at + size]
        self.recipe_sha256 = _digest({"pack": SCHEMA, **settings})
        rows = [
            [name, [[self.rel(p.blur), self.rel(p.sharp), *_stamp(p)] for p in pairs]]
            for name, pairs in self.shards.items()
        ]
        self.sha256 = _digest({"settings": settings, "shards": rows})

    def rel(self, path: Path) -> str:
        """As it goes into the shards: below the root, or the name alone; never a folder of this machine."""
        return path.relative_to(self.base).as_posix() if path.is_relative_to(self.base) else path.name

    def key(self, p: Pair) -> str:
        return self.keys[f"{p.scene}/{p.name}"]


def _stamp(pair: Pair) -> tuple[int, int]:
    try:
        return pair.blur.stat().st_size, pair.sharp.stat().st_size
    except OSError:
        return -1, -1  # told when it is read


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _mixed(pairs: Sequence[Pair]) -> list[Pair]:
    """Each scene spread evenly over the whole, so that a shard is not one scene."""
    count = Counter(p.scene for p in pairs)
    seen: Counter[str] = Counter()
    placed: list[tuple[float, int, Pair]] = []
    for p in pairs:
        placed.append(((seen[p.scene] + 0.5) / count[p.scene], len(placed), p))
        seen[p.scene] += 1
    return [p for _, _, p in sorted(placed, key=lambda x: x[:2])]


def _assign(pairs: Sequence[Pair], val_fraction: float, seed: int) -> dict[str, Split]:
    """Split of every scene. Official ones hold; the rest is ranked by a hash of (seed, scene)."""
    group = _joined(pairs)
    official: dict[str, set[Split]] = defaultdict(set)
    members: dict[str, list[str]] = defaultdict(list)
    for p in pairs:
        official[group[p.scene]] |= {p.split} if p.split else set()
    for scene, head in group.items():
        members[head].append(scene)
    free = sorted(
        (h for h in members if not official[h]),
        key=lambda h: hashlib.sha256(f"{seed}:{h}".encode()).hexdigest(),
    )
    if any(official.values()):
        wanted = 0  # the rest trains: val is what the set's authors held out
    elif val_fraction > 0 and len(free) >= 2:
        wanted = min(max(round(val_fraction * len(free)), 1), len(free) - 1)
    else:
        wanted = 0
    val = {*free[:wanted], *(h for h in members if "val" in official[h])}
    return {scene: "val" if head in val else "train" for scene, head in group.items()}


def _joined(pairs: Sequence[Pair]) -> dict[str, str]:
    """Scene -> the first scene of its group: scenes that hold one and the same sharp picture belong together."""
    head = {p.scene: p.scene for p in pairs}

    def find(scene: str) -> str:
        while head[scene] != scene:
            scene = head[scene]
        return scene

    sizes: dict[int, list[Pair]] = defaultdict(list)
    for p in pairs:
        sizes[_stamp(p)[1]].append(p)
    for alike in sizes.values():
        if len({p.scene for p in alike}) < 2:
            continue
        first: dict[str, str] = {}
        for p in alike:
            try:
                with p.sharp.open("rb") as f:
                    digest = hashlib.file_digest(f, "sha256").hexdigest()
            except OSError:
                continue  # told when it is read
            a, b = find(first.setdefault(digest, p.scene)), find(p.scene)
            head[max(a, b)] = min(a, b)
    return {scene: find(scene) for scene in head}


def _refuse_mix(out: Path, plan: _Plan) -> None:
    for path in sorted(out.iterdir()):
        if SHARD_NAME.fullmatch(path.stem) and path.suffix in (".tar", ".json"):
            try:
                side = read_sidecar(path.with_suffix(".json"))
            except ShardError:
                side = None
            if side is None and path.suffix == ".tar":
                continue  # left by a run that was killed; it is written again
            if side is None or side["plan_sha256"] != plan.sha256:
                raise OutputError(
                    f"{out}: holds shards of other pairs or settings ({path.name}); give another --out, or remove them"
                )


def _write(output: Output, plan: _Plan, quiet: bool) -> PackReport:
    told = PackReport(str(output.path), notes=report(plan.found.left_out))
    sides: dict[str, dict[str, Any] | None] = {}
    scenes: dict[str, set[str]] = defaultdict(set)
    with (
        ThreadPoolExecutor() as pool,
        Meter("packing", len(plan.found.pairs), unit="pair", quiet=quiet) as meter,
    ):
        for name, pairs in plan.shards.items():
            split = name.partition("-")[0]
            rejected: Counter[str] = Counter()
            with ShardWriter(output.path, name) as writer:
                for p, members in zip(pairs, pool.map(lambda p: _try(p, plan), pairs), strict=True):
                    if isinstance(members, _Unusable):
                        told.failed.append(f"{p.blur} and {p.sharp}: {members}")
                        rejected["unusable"] += 1
                        continue
                    data, copied = members
                    writer.add(plan.key(p), data)
                    told.copied += copied
                    scenes[split].add(p.scene)
                fields: dict[str, Any] = {
                    "split": split,
                    "recipe_sha256": plan.recipe_sha256,
                    "plan_sha256": plan.sha256,
                    "version": __version__,
                }
                counts = {"written": writer.samples, "rejected": dict(rejected)}
                side = writer.commit(fields | {"counts": counts, "sources": {}, "errors": []})
            sides[name] = side
            told.bytes += side["bytes"]
            told.splits[split] = told.splits.get(split, 0) + side["samples"]
            meter.advance(n=len(pairs))
    told.scenes = {s: len(scenes[s]) for s in told.splits}
    _write_index(output, plan, sides, told)
    return told


def _try(pair: Pair, plan: _Plan) -> tuple[dict[str, bytes], int] | _Unusable:
    try:
        return _members(pair, plan)
    except _Unusable as e:
        return e


def _members(pair: Pair, plan: _Plan) -> tuple[dict[str, bytes], int]:
    """Members of a pair's sample, and how many of its two pictures are copies. Raises _Unusable."""
    files = [_read(path) for path in (pair.blur, pair.sharp)]
    if files[0] == files[1]:
        raise _Unusable("are the same bytes")
    coded = [_as_stored(data, path) for data, path in zip(files, (pair.blur, pair.sharp))]
    (_, _, a), (_, _, b) = coded
    if a.shape != b.shape:
        raise _Unusable(f"are {a.shape[1]}x{a.shape[0]} and {b.shape[1]}x{b.shape[0]} pixels")
    digests = [hashlib.sha256(f).hexdigest() for f in files]
    rel = [plan.rel(p) for p in (pair.blur, pair.sharp)]
    copied = [data == file for (_, data, _), file in zip(coded, files)]
    key = plan.key(pair)
    # A sharp picture is what a split may not share: its bytes stand for the source.
    source = {
        "dataset": None,
        "clip": pair.scene,
        "path": rel[1],
        "sha256": digests[1],
        "fps": None,
        "first": None,
        "last": None,
        "target": None,
    }
    meta = {
        "schema": SCHEMA,
        "key": key,
        "seed": None,
        "recipe_sha256": plan.recipe_sha256,
        "version": __version__,
        "source": source,
    }
    packed = {
        "scene": pair.scene,
        "name": pair.name,
        "official": pair.split is not None,
        "in_time_order": pair.from_folder,
        "blur": rel[0],
        "blur_sha256": digests[0],
        "sharp": rel[1],
        "copied": all(copied),
    }
    members = {f"{role}.{ext}": data for role, (ext, data, _) in zip(("blur", "sharp"), coded)}
    return members | {"json": dump_json(meta | UNKNOWN | {"packed": packed}, indent=None)}, sum(copied)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise _Unusable(f"{path.name} cannot be read ({e.strerror})") from None


def _as_stored(data: bytes, path: Path) -> tuple[str, bytes, np.ndarray]:
    """(extension, bytes, pixels): the file's own bytes where shards hold such, else its pixels as PNG. Raises _Unusable."""
    ext = "png" if data[:4] == b"\x89PNG" else "webp" if data[8:12] == b"WEBP" else None
    if ext and (ext == "png" or b"VP8L" in data[12:4096]):
        try:
            return ext, data, decode_image(data)
        except ShardError as e:
            if "not a decodable colour image" not in str(e):
                raise _Unusable(f"{path.name}: {e}") from None
    size = image_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise _Unusable(f"{path.name}: claims {size[0]} x {size[1]} pixels")
    rgb = decode_any(data)
    if rgb is None:
        raise _Unusable(f"{path.name}: not a picture that can be decoded whole, or one with transparency")
    return "png", encode_image(rgb, "png"), rgb


def decode_any(data: bytes) -> np.ndarray | None:
    """(H, W, 3) RGB uint8 or uint16 of any picture OpenCV reads, turned as its EXIF says; grey becomes RGB.

    None for what cannot be decoded, ends early, or is not opaque: there is no right colour behind it.
    """
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]:
        return None
    try:
        as_is = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    if as_is is None or bgr is None or bgr.dtype not in (np.uint8, np.uint16):
        return None
    if (
        as_is.ndim == 3
        and as_is.shape[2] == 4
        and int(as_is[..., 3].min()) != (255 if as_is.dtype == np.uint8 else 65535)
    ):
        return None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _write_index(
    output: Output, plan: _Plan, sides: dict[str, dict[str, Any] | None], told: PackReport
) -> None:
    splits, rejected = split_table(sides)
    index = {
        "schema": SCHEMA,
        "version": __version__,
        "recipe_sha256": plan.recipe_sha256,
        "plan_sha256": plan.sha256,
        "complete": True,
        "splits": splits,
        "rejected": rejected,
        "packed": plan.settings,
        "sources": [{"clip": s, "split": split} for s, split in sorted(plan.splits.items())],
        "not_used": [
            {"source": Path(w).name, "reason": "no pair", "detail": why} for w, why in plan.found.left_out
        ],
        "provenance": {},
    }
    write_atomic(output.path / "_info.json", dump_json(timm_info(splits)))
    if output.owns_card():
        write_atomic(output.path / "README.md", _card(splits).encode())
    write_atomic(output.path / "dataset.json", dump_json(index))  # last: it says that the others are there


def _card(splits: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {n} | {s['samples']} | {len(s['shards'])} | {human_bytes(s['bytes'])} |"
        for n, s in splits.items()
    )
    return f"""---
tags: [deblurring, motion-blur, webdataset, image-to-image]
---
{CARD_MARK}
# Blurred and sharp pairs, packed by Blursynth {__version__}

| split | samples | shards | size |
|---|---|---|---|
{rows}

Each sample of a shard: `KEY.blur.png` (input), `KEY.sharp.png` (target), `KEY.json`; `.webp` where the files were lossless
WebP. The pairs were not made here: what is not known of their exposure is null. Their licence is that of their source.
"""
