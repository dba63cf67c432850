"""``make``: sources in, a folder of shards out. Resume, dispatch, progress, index, summary."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
from pydantic import ValidationError

from blursynth import __version__
from blursynth.card.index import Made, write_index
from blursynth.common.errors import explain_validation
from blursynth.common.progress import Meter
from blursynth.common.stop import Terminated, term_interrupts
from blursynth.common.text import counted
from blursynth.recipe import Recipe, RecipeError, RunOptions, kept_name, load_recipe
from blursynth.run.bucket import open_output
from blursynth.run.estimate import estimate
from blursynth.run.folder import Output, OutputError
from blursynth.run.local import dispatch
from blursynth.run.outcome import Assembly, EngineError, Outcome, ShardTask, fill_outcome
from blursynth.run.plan import Plan, make_plan
from blursynth.run.report import RunLog, Summary
from blursynth.run.task import make_shard
from blursynth.shards.schema import KEPT
from blursynth.sources.find import Clip, Reject, SourceError, expand_glob, find_clips, is_output
from blursynth.sources.fingerprint import fingerprint
from blursynth.sources.manifest import load_manifest
from blursynth.sources.splits import assign_splits
from blursynth.video.clip import decode_with, read_as
from blursynth.video.packets import packet_index
from blursynth.video.takes import folder_order
from blursynth.video.verdict import HIGH_RATE, WINDOW, known_undecoded, low_rate, several_takes


def make(
    src: str | Path | Sequence[str | Path] | None = None,
    out: str | Path | None = None,
    recipe: Recipe | str | None = None,
    *,
    quiet: bool = False,
    task: Callable[[ShardTask], Outcome] = make_shard,
    **options: Any,
) -> Summary:
    """Synthesise a data set, or go on with one that was interrupted.

    Args:
        src: a video, a folder of videos or of frames, a known data set's root; or several.
        out: folder of the shards; default "data".
        recipe: a Recipe, or the name or file of one.
        quiet: no progress on stderr.
        task: what makes one shard, for tests and other engines.
        options: any recipe key or run option: ``window=9, workers=4, overwrite=True``...

    Returns the summary: counts of samples and of what was left out, and ``exit_code``.

    Raises:
        RecipeError, SourceError, OutputError: the request cannot be carried out as it stands.
        EngineError: the engine is not there or was lost.
        KeyboardInterrupt: stopped by hand; what is finished stays and the same call goes on.
    """
    recipe, run = resolve(src, out, recipe, options)
    check_recipe(recipe, run)
    output = open_output(run.out)
    refuse_hiding(recipe, run, output.path)
    kept = read_files(recipe)  # now: --overwrite may remove the folder that they are read from
    files = recipe_files(recipe, run, kept)
    if run.dry_run:
        plan, unused, warnings = prepare(recipe, run, files)
        with output.glance():
            if run.overwrite:
                output.refuse_clear()
            else:
                output.refuse_mix(recipe)
        return estimate(plan, run, unused, output, warnings)
    with term_interrupts(), output.lock():
        try:
            if run.overwrite:
                prepare(recipe, run, files)  # what cannot be made must not cost what is there
                output.clear()
            plan, unused, warnings = prepare(recipe, run, files, cache=output.state / "sources.json")
            output.refuse_mix(recipe, plan)
            output.begin(recipe, plan, kept)
            plan.recipe = recipe.named(output.path.absolute())
            summary = _run(plan, run, unused, output, quiet, task)
            summary.warnings += warnings
            return summary
        except OSError as e:
            raise OutputError(
                f"{run.out}: {e.strerror or e}; what is finished stays, the same command goes on", 1
            ) from None


def resolve(
    src: Any, out: Any, recipe: Recipe | str | None, options: dict[str, Any]
) -> tuple[Recipe, RunOptions]:
    """Merge a recipe with what the caller says. Raises RecipeError."""
    given = {k: v for k, v in options.items() if v is not None}
    if src is not None:
        given["src"] = [str(s) for s in ([src] if isinstance(src, (str, Path)) else src)]
    if out is not None:
        given["out"] = str(out)
    if isinstance(recipe, Recipe):
        keys = {k: v for k, v in given.items() if k in Recipe.model_fields}
        _, run = load_recipe(None, {k: v for k, v in given.items() if k not in keys})
        try:
            recipe = Recipe(**recipe.model_dump() | keys)
        except ValidationError as e:
            raise RecipeError(explain_validation(e, said=keys)) from None
    else:
        recipe, run = load_recipe(recipe, given)
    if not run.src:
        raise RecipeError(
            "no source: give --src PATH (a video, a folder of videos or frames, a data set's root)"
        )
    if run.overwrite and run.retry_failed:
        raise RecipeError(
            "--overwrite removes what was made, --retry-failed makes what failed and nothing else: give one of them"
        )
    return recipe, run.model_copy(update={"src": [path for s in run.src for path in expand_glob(s)]})


def refuse_hiding(recipe: Recipe, run: RunOptions, out: Path) -> None:
    """Raises OutputError where films lie that a walk through a source finds: once shards are there it passes them over."""
    real = Path(os.path.realpath(out))
    around = (Path(os.path.realpath(Path(s).expanduser())) for s in run.src)
    if not real.is_dir() or is_output(real) or not any(r.is_dir() and real.is_relative_to(r) for r in around):
        return
    with contextlib.suppress(SourceError):  # none
        find_clips([real], recipe.fps or recipe.fps_unknown, recipe.deinterlace, recipe.stills)
        raise OutputError(
            f"{run.out}: is a source, or a part of one, and shards would hide its films; give another --out"
        )


def check_recipe(recipe: Recipe, run: RunOptions) -> None:
    """Open every file the recipe names, once, here: not in each of a thousand tasks. Raises RecipeError."""
    from blursynth.pairs.synthesis import Synthesizer

    Synthesizer(recipe, run.rife_weights)


def prepare(
    recipe: Recipe, run: RunOptions, files: dict[str, str], cache: Path | None = None
) -> tuple[Plan, list[Reject], list[str]]:
    """Find the clips, hash them, plan; the sources that give nothing; and where the recipe goes against a file.

    Raises SourceError when no source gives anything, ClipError where the decoder asked for is not there.
    """
    clips, unused = find_clips(run.src, recipe.fps or recipe.fps_unknown, recipe.deinterlace, recipe.stills)
    warnings: list[str] = []
    for n, clip in enumerate(clips):
        info, against = read_as(clip.info, recipe)
        if recipe.readout_ms and not info.fps and info.kind != "still":
            raise SourceError(
                f"{info.path}: its frame rate is not known, and --readout-ms needs it: give --fps or --fps-unknown"
            )
        clips[n] = replace(clip, info=decode_with(info, run.decoder))
        warnings += [f"{clip.info.path}: {words}" for words in against]
    refuse_readout(clips, recipe)
    warnings += film_warnings(clips)
    warnings += long_exposures([c for c in clips if c.info.kind != "still"], recipe)
    splits = assign_splits(clips, recipe.val_fraction, recipe.seed)
    hashes, stamps = None, None
    if cache is not None:  # a dry run reads no more than it must
        # After the split, which keeps copies together: dropping one first could drop the one that is officially val.
        clips, prints = fingerprint(clips, cache)
        hashes, stamps = prints.sha256, prints.stamps
        unused += prints.rejects
    plan = make_plan(clips, splits, recipe, hashes, stamps, files)
    unused += plan.short
    if not plan.samples:
        raise SourceError(
            "no clip gives a single window: "
            + "; ".join(f"{r.what}: {r.detail or r.reason}" for r in unused[:5])
        )
    return plan, unused, warnings


def refuse_readout(clips: Sequence[Clip], recipe: Recipe) -> None:
    """Raises RecipeError where no row would be open in any window there can be. Where only some windows are too short,
    these are left out one by one, and counted."""
    films = [c for c in clips if c.info.kind != "still"]
    if not recipe.readout_ms or not films:
        return
    # The rate is known of all: `prepare` has seen to it.
    longest = max(
        1000 * (recipe.window_range_of(c.window_hint)[1] - 1) / (recipe.fps or c.info.fps or 1.0)
        for c in films
    )
    # Last, as it reads films through: a film that changes its rate may have a longer window.
    if recipe.readout_ms >= longest and (recipe.fps is not None or not any(map(_changes_rate, films))):
        raise RecipeError(
            f"readout_ms {recipe.readout_ms:g}: the longest window lasts {longest:.4g} ms, so no row would be exposed; "
            "give a readout shorter than that, or a longer --window"
        )


def _changes_rate(clip: Clip) -> bool:
    """Whether a film's steps differ by its time stamps, or that cannot be told."""
    if clip.info.kind != "video":
        return False
    try:
        return bool(packet_index(clip.info.path).timing.breaks)
    except (OSError, IndexError, av.error.FFmpegError):
        return True


def film_warnings(clips: Sequence[Clip]) -> list[str]:
    """What ``audit`` says of videos by their headers and time stamps, of folders by names alone; nothing is decoded for it."""
    told: dict[str, list[str]] = {}
    for clip in clips:
        if clip.info.kind == "frames":
            with contextlib.suppress(OSError):  # told where its frames are read
                for words in several_takes(folder_order(clip.info.path).takes):
                    told.setdefault(words, []).append(clip.rel)
        if clip.info.kind != "video":
            continue
        try:
            timing = packet_index(clip.info.path).timing
        except (OSError, IndexError, av.error.FFmpegError):
            continue  # told where its frames are read
        breaks = Counter(timing.breaks.values())
        for words in known_undecoded(
            clip.info.frames, breaks["gap"], breaks["rate"], timing.jitter, clip.info.transfer
        ):
            told.setdefault(words, []).append(clip.rel)
    return _by_clips(told)


def _by_clips(told: dict[str, list[str]]) -> list[str]:
    """A line a warning: the one clip that it is of, or how many."""
    return [
        f"{names[0] if len(names) == 1 else counted(len(names), 'clip')}: {why}"
        for why, names in told.items()
    ]


def long_exposures(clips: Sequence[Clip], recipe: Recipe) -> list[str]:
    """What ``audit`` says of films whose rate is too low for the window, once for all clips of a rate."""
    told: dict[str, list[str]] = {}
    for clip in clips:
        fps, most = recipe.fps or clip.info.fps, recipe.window_range_of(clip.window_hint)[1]
        # A camera's exposure is a moment: as long as the default window lasts at the rate where films become "high".
        if fps and fps < HIGH_RATE and (most - 1) * recipe.draw_duty(1.0) / fps > (WINDOW - 1) / HIGH_RATE:
            told.setdefault(low_rate(fps, most), []).append(clip.rel)
    return _by_clips(told)


def read_files(recipe: Recipe) -> dict[str, bytes]:
    """The recipe's FILE.npy values, by the names they get in DATA. Raises RecipeError."""
    kept = {}
    for key, path in recipe.files.items():
        data = _read(key, path)
        named = KEPT.fullmatch(path.name)
        # One file may serve two keys, so the name of a kept file says its content, not its key.
        if named and named["sha12"] != hashlib.sha256(data).hexdigest()[:12]:
            raise RecipeError(
                f"{key}: {path}: its content is not what its name says; give the original another name"
            )
        kept[path.name if named else kept_name(key, data)] = data
    return kept


def recipe_files(recipe: Recipe, run: RunOptions, kept: dict[str, bytes]) -> dict[str, str]:
    """sha256 of the files a recipe names: another file under the same name is another recipe. Raises RecipeError."""
    found = {name.partition("-")[0]: hashlib.sha256(data).hexdigest() for name, data in kept.items()}
    if recipe.interp == "rife":
        from blursynth.exposure.rife import find_weights

        weights = find_weights(run.rife_weights)
        found["rife_weights"] = hashlib.sha256(_read("rife_weights", Path(weights))).hexdigest()
    return found


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise RecipeError(f"{key}: {path}: {e.strerror or e}") from None


def _run(
    plan: Plan,
    run: RunOptions,
    unused: list[Reject],
    output: Output,
    quiet: bool,
    task: Callable[[ShardTask], Outcome],
) -> Summary:
    workers = run.workers or os.cpu_count() or 1
    log = RunLog(output.path / "run.jsonl")
    sides, failed = output.finished(plan), output.failures()
    if run.retry_failed:
        # A shard with failed samples is finished, but not as it should be.
        wanted = set(failed) | {n for n, s in sides.items() if s.get("errors")}
        for name in wanted & sides.keys():
            output.forget(name)
            del sides[name]
        failed = {}
    else:
        wanted = set(plan.shards) - sides.keys() - failed.keys()
    summary = Summary(
        run.out,
        plan.samples,
        shards=len(plan),
        clips=len(plan.clips),
        clip_rejects=unused,
        planned_splits=plan.split_samples,
        workers=workers,
    )
    for name, side in sides.items():
        summary.add(fill_outcome(Outcome(name), side))
    log.write(
        "start", src=[str(Path(s).expanduser().absolute()) for s in run.src], version=__version__, recipe_sha256=plan.recipe.sha256, plan_sha256=plan.sha256,
        rife_weights=run.rife_weights, shards=len(plan), finished=len(sides), workers=workers, engine=run.engine, pid=os.getpid(),
    )  # fmt: skip
    began, done = (
        time.monotonic(),
        sum(s["samples"] + sum(s["counts"]["rejected"].values()) for s in sides.values()),
    )
    lost = 0  # planned samples that this run rejected
    making = Assembly(output.path)
    outcomes = dispatch(
        plan.tasks(output.path.absolute(), wanted, run.rife_weights), task, workers, run.engine
    )
    try:
        with contextlib.closing(outcomes), Meter("making pairs", plan.samples, done, quiet=quiet) as meter:
            for o in outcomes if wanted else ():
                if o.status == "stop":
                    log.write("shard", **vars(o))
                    summary.stopped = o.reason
                    break
                lost += (rejected := sum(o.rejects.values()))
                meter.advance(f"{lost} rejected", o.samples + rejected)
                if (shard := making.add(o)) is None:
                    continue
                log.write("shard", **vars(shard))
                if shard.status == "done":
                    output.deliver(shard.shard)
                    summary.add(shard)
                    summary.made += shard.made
                else:
                    failed[shard.shard] = {k: getattr(shard, k) for k in ("status", "reason", "tries")}
                    output.save_failures(failed)
    except KeyboardInterrupt as e:
        log.write("stopped", by="SIGTERM" if isinstance(e, Terminated) else "Ctrl-C")
        raise
    except EngineError as e:
        summary.stopped = str(e)
    finally:
        output.sweep()  # of workers that were ended
    summary.seconds = time.monotonic() - began
    summary.failed = {name: f["reason"] for name, f in failed.items()}
    output.save_failures(failed)
    finished = output.finished(plan)
    made = Made(
        plan.recipe.named(),
        plan.sha256,
        shards={name: finished.get(name) for name in plan.shards},
        sources=[p.identity() for p in plan.clips],
        unused=[{"source": r.what, "reason": r.reason, "detail": r.detail} for r in unused],
        provenance=_provenance(plan),
        roots=[os.path.abspath(Path(s).expanduser()) for s in run.src],  # noqa: PTH100  # as find_clips does
    )
    write_index(output.path, made, output.rows(finished), card=output.owns_card())
    log.write("end", **summary.facts())
    output.finish()
    return summary


def _provenance(plan: Plan) -> dict[str, Any]:
    """Home, licence and citation of the known data sets among the sources."""
    names = {p.clip.dataset for p in plan.clips if p.clip.dataset}
    keep = {"title", "home", "licence", "citation"}
    return {d.id: d.model_dump(include=keep) for d in load_manifest().datasets if d.id in names}
