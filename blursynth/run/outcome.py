"""What travels between processes: a shard's task, and what became of it. Small, and the same for every engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blursynth.common.errors import UserError
from blursynth.recipe import Recipe
from blursynth.shards.pieces import join_pieces, piece_name, pieces_folder
from blursynth.shards.shard import ShardError
from blursynth.sources.find import Clip

TRIES = 3  # a task that takes its worker down this often is left out


@dataclass(frozen=True)
class WindowSpec:
    """Frames ``first..last``, both in, of clip number ``clip``; ``tiles`` of it at most become samples.

    ``draw`` numbers the samples of a still, each with a shake and a crop of its own; ``donors`` are the stills that
    its moving layers are cut from, one a layer.
    """

    clip: int
    first: int
    last: int
    tiles: int = 1
    draw: int = 0
    donors: tuple[PlanClip, ...] = ()

    @property
    def frames(self) -> int:
        return self.last - self.first + 1

    @property
    def target(self) -> int:
        """The source frame that ``sharp`` is a copy of."""
        return (self.first + self.last) // 2


@dataclass(frozen=True)
class PlanClip:
    """A source clip as tasks know it."""

    clip: Clip
    split: str
    prefix: str  # start of its keys, unique in the plan
    sha256: str | None = None
    stamp: tuple[int, ...] | None = (
        None  # cheap proof, within a run, that the source is still what was hashed
    )

    @property
    def still(self) -> bool:
        return self.clip.info.kind == "still"

    def key(self, w: WindowSpec) -> str:
        if self.still:
            return f"{self.prefix}_s{w.draw:06d}"
        return f"{self.prefix}_{w.first:06d}_{w.frames:02d}"

    def identity(self) -> dict[str, Any]:
        """What of this clip decides bytes, and nothing of the machine."""
        i = self.clip.info
        return {
            "rel": self.clip.rel,
            "clip": self.clip.name,
            "dataset": self.clip.dataset,
            "split": self.split,
            "sha256": self.sha256,
            "frames": i.frames,
            "fps": i.fps,
            "width": i.width,
            "height": i.height,
            "decoder": "image" if i.kind == "frames" else "av",  # decord gives the same frames or is not used
        }


@dataclass(frozen=True)
class Run:
    """Windows of one clip in order, read in one pass."""

    source: PlanClip
    windows: tuple[WindowSpec, ...]

    @property
    def sources(self) -> list[PlanClip]:
        """Every clip that the run reads, once: the source, then the donors of its layers."""
        return list(
            {p.clip.rel: p for p in (self.source, *(d for w in self.windows for d in w.donors))}.values()
        )


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to make one shard, or a piece of it: paths and numbers only, a few kB to send."""

    shard: str  # "train-000000"
    split: str
    out: str
    runs: tuple[Run, ...]
    recipe: Recipe
    plan_sha256: str
    rife_weights: str | None = None
    piece: int = 0
    pieces: int = 1

    @property
    def name(self) -> str:
        """Of the tar that this task makes, without its extension."""
        return task_name(self.shard, self.piece, self.pieces)

    @property
    def folder(self) -> Path:
        """Where that tar goes: pieces lie apart until they are joined."""
        return Path(self.out) if self.pieces == 1 else pieces_folder(self.out)

    @property
    def samples(self) -> int:
        """Most samples it can give, before rejects."""
        return sum(w.tiles for r in self.runs for w in r.windows)


def task_name(shard: str, piece: int, pieces: int) -> str:
    return shard if pieces == 1 else piece_name(shard, piece)


class Rejected(Exception):
    """A window that gives no sample; the reason is a few fixed words, for counting.

    values: what was measured, by the names of the gates; ``frame``: the source frame at fault, or, for a step between
    two frames that may not be exposed, the second of them.
    """

    def __init__(self, reason: str, values: dict[str, float] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.values = reason, values or {}


@dataclass
class ClipCounts:
    """What one clip gave: samples, and planned samples that were not kept, by reason."""

    written: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        return {"written": self.written, "rejected": dict(sorted(self.rejected.items()))}


@dataclass
class Outcome:
    """What became of one task; small, so that it travels."""

    shard: str
    status: str = "done"  # done, failed (may work when tried again), killed (took its worker down), stop (the run must end)
    reason: str = ""
    samples: int = 0
    made: int = 0  # of which now, and not found as an earlier run left them
    bytes: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)  # rel -> ClipCounts.facts()
    errors: list[str] = field(default_factory=list)  # samples that failed though their frames were fine
    seconds: float = 0.0
    clip_seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    worker: str = ""
    tries: int = 1
    piece: int = 0
    pieces: int = 1

    @property
    def name(self) -> str:
        """Of the task."""
        return task_name(self.shard, self.piece, self.pieces)


Fn = Callable[[ShardTask], Outcome]


class EngineError(UserError):
    """An engine that cannot run at all, or was lost; the message says what to do."""


def guarded(fn: Fn, task: ShardTask) -> Outcome:
    """``fn(task)``, where an exception is an outcome too: one task must not end a run."""
    try:
        outcome = fn(task)
    except Exception as e:
        return failed(task, "failed", f"{type(e).__name__}: {e}")
    outcome.piece, outcome.pieces = task.piece, task.pieces
    return outcome


def failed(task: ShardTask, status: str, reason: str, tries: int = 1) -> Outcome:
    return Outcome(task.shard, status, reason, tries=tries, piece=task.piece, pieces=task.pieces)


def fill_outcome(outcome: Outcome, side: dict[str, Any]) -> Outcome:
    outcome.samples, outcome.bytes = side["samples"], side["bytes"]
    counts = side["counts"]
    outcome.rejects, outcome.errors = dict(counts["rejected"]), list(side.get("errors", []))
    outcome.clips = dict(counts.get("clips", {}))
    return outcome


class Assembly:
    """Shards in the making: outcomes of pieces are held until a shard's last one comes, which joins them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.held: dict[str, list[Outcome]] = defaultdict(list)

    def add(self, outcome: Outcome) -> Outcome | None:
        """The outcome of the whole shard; None while pieces of it are to come. Raises OSError where joining fails."""
        if outcome.pieces == 1:
            return outcome
        held = self.held[outcome.shard]
        held.append(outcome)
        if len(held) < outcome.pieces:
            return None
        del self.held[outcome.shard]
        held.sort(key=lambda o: o.piece)
        whole = Outcome(
            outcome.shard,
            made=sum(o.made for o in held),
            seconds=sum(o.seconds for o in held),
            clip_seconds=dict(sum((Counter(o.clip_seconds) for o in held), Counter[str]())),
            peak_mb=max(o.peak_mb for o in held),
            worker=", ".join(sorted({o.worker for o in held} - {""})),
            tries=max(o.tries for o in held),
        )
        for o in held:
            if o.status != "done":
                whole.status, whole.reason = o.status, o.reason
                return whole
        try:
            return fill_outcome(whole, join_pieces(self.out, outcome.shard, outcome.pieces))
        except ShardError as e:
            whole.status, whole.reason = "failed", str(e)
            return whole
