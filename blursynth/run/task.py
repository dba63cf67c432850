"""One shard, or a piece of one, start to end: the pure function every engine runs, in any order, as often as it likes."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from blursynth import __version__
from blursynth.common.memory import keep_freed_memory
from blursynth.pairs.layers import Donor
from blursynth.recipe import Recipe, RecipeError
from blursynth.run.folder import at_work
from blursynth.run.outcome import ClipCounts, Outcome, PlanClip, Rejected, ShardTask, WindowSpec, fill_outcome
from blursynth.run.plan import tile_corners
from blursynth.run.windows import find_donors, read_windows
from blursynth.shards.picture import encode_flow, encode_image, encode_mask
from blursynth.shards.shard import SCHEMA, ShardError, ShardWriter, dump_json, read_sidecar, tar_matches
from blursynth.sources.fingerprint import SourceChanged, check_source
from blursynth.video.frame import Frame


class SampleMaker(Protocol):
    """What a task needs of ``synthesis.Synthesizer``."""

    def sample(
        self,
        clip_id: str,
        frames: list[np.ndarray],
        first: int,
        fps: float | None,
        rng: np.random.Generator,
        stride: int | None = None,
        transfer: str = "srgb",
        above: Sequence[np.ndarray | None] = (),
    ) -> Any: ...
    def still(self, codes: np.ndarray, rng: np.random.Generator, donors: Sequence[Donor] = ()) -> Any: ...
    def forget(self, clip_id: str, before: int) -> None: ...


def make_shard(
    task: ShardTask, synthesizer: Callable[[Recipe, str | None], SampleMaker] | None = None
) -> Outcome:
    """Make the task's tar and its sidecar; never raises for bad data, a vanished source or a full disk.

    Args:
        synthesizer: called with (recipe, rife_weights); default: ``synthesis.Synthesizer``.
    """
    start = time.perf_counter()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    outcome = Outcome(task.shard, worker=worker, piece=task.piece, pieces=task.pieces)
    try:
        if not _finished(task, outcome):
            _settle_in()
            with at_work(task.out):
                _make(task, outcome, synthesizer or default_synthesizer)
    except SourceChanged as e:
        outcome.status, outcome.reason = "failed", str(e)
    except RecipeError as e:  # true of every sample there is
        outcome.status, outcome.reason = "stop", str(e)
    except MemoryError:
        outcome.status, outcome.reason = "failed", "out of memory; use fewer --workers or a smaller source"
    except OSError as e:
        # Nothing else can be written either: end the run instead of failing every shard that is left.
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
        outcome.status, outcome.reason = ("stop" if full else "failed"), f"{task.out}: {e.strerror or e}"
    except Exception as e:
        outcome.status, outcome.reason = "failed", f"{type(e).__name__}: {e}"
    outcome.seconds, outcome.peak_mb = time.perf_counter() - start, _peak_mb()
    return outcome


def _finished(task: ShardTask, outcome: Outcome) -> bool:
    """Whether the tar is there already: an engine may run a task twice, a killed run may have left it."""
    try:
        side = read_sidecar(task.folder / f"{task.name}.json")
    except ShardError:
        return False  # torn by hand or by a bad disk: made again
    tar = task.folder / f"{task.name}.tar"
    if side is None or side["plan_sha256"] != task.plan_sha256 or not tar_matches(tar, side):
        return False
    if task.pieces > 1 and side.get("errors"):
        return False  # its shard is not finished, so its failed samples may be tried again
    fill_outcome(outcome, side)
    return True


def _make(
    task: ShardTask, outcome: Outcome, synthesizer: Callable[[Recipe, str | None], SampleMaker]
) -> None:
    maker = synthesizer(task.recipe, task.rife_weights)
    clips: dict[str, ClipCounts] = {}
    left_out: list[dict[str, Any]] = []
    if task.pieces > 1:
        task.folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(task.folder, task.name) as writer:
        for run in task.runs:
            began = time.perf_counter()
            clip = run.source.clip
            counts = clips.setdefault(clip.rel, ClipCounts())
            for read in run.sources:
                check_source(read.clip.info.path, read.stamp)
            for window, frames, fault in read_windows(run):
                try:
                    if fault is not None:
                        raise fault
                    counts.written += _write_samples(task, run.source, window, frames, maker, writer, outcome)
                except Rejected as e:
                    counts.rejected[e.reason] += window.tiles
                    left_out.append(_left_out(run.source, window, e))
                maker.forget(clip.rel, window.first)
            for read in run.sources:  # else samples carry the hash of other bytes
                check_source(read.clip.info.path, read.stamp)
            outcome.clip_seconds[clip.rel] = (
                outcome.clip_seconds.get(clip.rel, 0.0) + time.perf_counter() - began
            )
        rejected = sum((c.rejected for c in clips.values()), Counter[str]())
        side = writer.commit(
            {
                "split": task.split,
                "recipe_sha256": task.recipe.sha256,
                "plan_sha256": task.plan_sha256,
                "version": __version__,
                "counts": {
                    "written": writer.samples,
                    "rejected": dict(sorted(rejected.items())),
                    "clips": {rel: c.facts() for rel, c in sorted(clips.items())},
                },
                "left_out": left_out,
                "sources": {p.clip.rel: p.sha256 for r in task.runs for p in r.sources},
                "errors": outcome.errors,
                **({"members": writer.end} if task.pieces > 1 else {}),
            }
        )
        fill_outcome(outcome, side)
        outcome.made = outcome.samples


def _left_out(source: PlanClip, w: WindowSpec, why: Rejected) -> dict[str, Any]:
    """A window that gave no sample, as the sidecar lists it: ``inspect`` shows one of each reason."""
    return {
        "key": source.key(w),
        "clip": source.clip.rel,
        "first": w.first,
        "last": w.last,
        "samples": w.tiles,
        "reason": why.reason,
        "values": why.values,
    }


def _write_samples(
    task: ShardTask,
    source: PlanClip,
    w: WindowSpec,
    frames: list[Frame],
    maker: SampleMaker,
    writer: ShardWriter,
    outcome: Outcome,
) -> int:
    """Synthesise one window and add its samples; how many. Raises Rejected for a gate, or an error of ours."""
    key = source.key(w)
    try:
        members = list(sample_members(task.recipe, source, w, frames, maker))
    except (Rejected, MemoryError, OSError, RecipeError):
        raise
    except Exception as e:
        # One bad sample must not cost the shard, and must not pass in silence either: the run ends with exit code 1.
        outcome.errors.append(f"{key} ({source.clip.rel}): {type(e).__name__}: {e}")
        raise Rejected(f"error: {type(e).__name__}") from None
    for name, parts in members:
        writer.add(name, parts)
    return len(members)


def sample_members(
    recipe: Recipe, source: PlanClip, w: WindowSpec, frames: list[Frame], maker: SampleMaker
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {extension: bytes}) of each sample of a window. Raises Rejected where a gate keeps the window out.

    A pure function of the recipe, the source's bytes and the window: ``explain`` calls it again and compares.
    """
    clip, key = source.clip, source.key(w)
    fps = recipe.fps or frames[w.target - w.first].rate or clip.info.fps
    options: dict[str, Any] = {"stride": recipe.stride or w.frames}
    if clip.info.transfer != "srgb":  # else what is above white is lost, and left to the recipe's highlights
        options |= {"transfer": clip.info.transfer, "above": [f.above for f in frames]}
    pictures = [f.rgb for f in frames if f.rgb is not None]
    soft, rng = {}, sample_rng(recipe.seed, key)
    if source.still:
        sample = maker.still(pictures[0], rng, find_donors(source, w, pictures[0]) if w.donors else ())
    else:
        soft = _softness(recipe, source, pictures[w.target - w.first])
        sample = maker.sample(clip.rel, pictures, w.first, fps, rng, **options)
    if sample.rejected:
        measured = {k: v for k, v in (sample.flow | sample.quality | soft).items() if isinstance(v, float)}
        measured.pop("thumb_scale", None)
        raise Rejected(str(sample.rejected), measured)
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "key": key,
        "seed": recipe.seed,
        "recipe_sha256": recipe.sha256,
        "version": __version__,
        "source": {
            "dataset": clip.dataset,
            "clip": clip.name,
            "path": clip.rel,
            "sha256": source.sha256,
            "kind": "still" if source.still else "film",
            "fps": fps,
            "first": w.first,
            "last": w.last,
            "target": w.target,
            **({"layers": _donors(source, w, sample)} if w.donors else {}),
        },
        "exposure": sample.exposure,
        "camera": sample.camera,
        "flow": sample.flow,
        "quality": sample.quality | soft,
    }
    images = {"blur": sample.blur_rgb, "sharp": sample.sharp_rgb}
    if recipe.store == "linear16":
        images["linear"] = sample.linear16
    images |= getattr(sample, "labels", {})
    if source.still and sample.corner is not None:
        meta["tile"] = dict(zip("xy", sample.corner), size=recipe.tile, window=key)
    if recipe.tile is None or source.still:
        yield key, _encode(recipe, images, meta)
        return
    height, width = sample.blur_rgb.shape[:2]
    for n, (x, y) in enumerate(tile_corners(width, height, recipe.tile, recipe.shake_range)[: w.tiles]):
        cut = {
            name: np.ascontiguousarray(im[y : y + recipe.tile, x : x + recipe.tile])
            for name, im in images.items()
        }
        tile = {"x": x, "y": y, "size": recipe.tile, "window": key}
        name = f"{key}_t{n:04d}"
        yield name, _encode(recipe, cut, meta | {"key": name, "tile": tile})


def _donors(source: PlanClip, w: WindowSpec, sample: Any) -> list[dict[str, Any]]:
    """Where a sample's layers were cut from: `source.layers` of its JSON."""
    used = [donor if other else source for donor, other in zip(w.donors, sample.donated)]
    return [{"clip": p.clip.name, "path": p.clip.rel, "sha256": p.sha256} for p in used]


def _softness(recipe: Recipe, source: PlanClip, target: np.ndarray) -> dict[str, float | None]:
    """How soft the target is beside its clip's best frames, where the recipe gates that: ``quality.soft``.

    Judged before the work, which it does not need. Raises Rejected.
    """
    if recipe.gate == "off":
        return {}
    from blursynth.pairs.quality import failed_gate, parse_gate
    from blursynth.video.sharpness import softness

    gates = [g for g in parse_gate(recipe.gate) if g[0] == "soft"]
    if not gates:
        return {}
    soft = softness(source.clip.info, target)
    if reason := failed_gate(gates, {"soft": soft}):
        raise Rejected(reason, {} if soft is None else {"soft": soft})
    return {"soft": soft}


def _encode(recipe: Recipe, images: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, bytes]:
    members = {}
    for name, im in images.items():
        if name == "flow":
            members["flow.npy"] = encode_flow(im)
        elif name == "mask":
            members["mask.png"] = encode_mask(im)
        else:
            ext = "png" if name == "linear" else recipe.format  # linear is 16 bits, which WebP cannot hold
            members[f"{name}.{ext}"] = encode_image(im, ext)
    return members | {"json": dump_json(meta, indent=None)}


def sample_rng(seed: int, key: str) -> np.random.Generator:
    """The draws of one sample: its own, whichever worker makes it and whatever came before."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def default_synthesizer(recipe: Recipe, rife_weights: str | None) -> SampleMaker:
    from blursynth.pairs.synthesis import Synthesizer

    return Synthesizer(recipe, rife_weights)


def _settle_in() -> None:
    """Engines run one task a core; threads inside would only fight (and DeepFlow gets slower with two)."""
    import cv2

    keep_freed_memory()
    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _peak_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
