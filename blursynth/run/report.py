"""What a run came to, for a person, a script and the run log."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blursynth.common.atomic import open_own
from blursynth.common.text import counted, human_bytes, human_seconds, one_line
from blursynth.run.outcome import ClipCounts, Outcome
from blursynth.sources.find import Reject

ADVICE = {
    "soft": "give sharper photos, or --gate off",
    "too small": "a smaller --tile, or a shorter --shake",
    "readout_ms": "a shorter --readout-ms, or a longer --window",
    "blur_px": "a lower LO in --blur-px, or a longer --window",
}
"""What to do about windows and stills that the film itself is not to blame for."""
DAMAGE = ("decode", "unreadable", "truncated", "empty")
"""Reasons that are no property of the footage, as a cut is, but a file that is broken."""


@dataclass
class Summary:
    """The result of ``make``. ``str()`` of it is what the command prints."""

    out: str
    planned: int = 0  # most samples, before rejects
    samples: int = 0  # in the finished shards, those of earlier runs included
    made: int = 0  # of which in this run
    bytes: int = 0
    shards: int = 0
    shards_done: int = 0
    splits: dict[str, int] = field(default_factory=dict)  # samples a split
    planned_splits: dict[str, int] = field(default_factory=dict)  # most samples a split, before rejects
    clip_counts: dict[str, ClipCounts] = field(
        default_factory=dict
    )  # what each clip gave, in the finished shards
    clips: int = 0
    rejects: Counter[str] = field(default_factory=Counter)  # planned samples that were not kept, by reason
    clip_rejects: list[Reject] = field(default_factory=list)  # sources not used
    warnings: list[str] = field(default_factory=list)  # where the recipe goes against what a source says
    errors: list[str] = field(default_factory=list)  # samples that failed though their frames were fine
    failed: dict[str, str] = field(default_factory=dict)  # shard -> why
    stopped: str | None = None  # why the run ended before its end
    seconds: float = 0.0
    clip_seconds: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0.0  # of the hungriest worker
    dry_run: bool = False
    estimate_s: float | None = None
    estimate_bytes: int | None = None
    free_bytes: int | None = None
    no_estimate: str = ""  # why there is none
    workers: int = 1

    def add(self, outcome: Outcome) -> None:
        """Count one finished shard."""
        self.samples += outcome.samples
        self.bytes += outcome.bytes
        self.shards_done += 1
        split = outcome.shard.partition("-")[0]
        self.splits[split] = self.splits.get(split, 0) + outcome.samples
        self.rejects.update(outcome.rejects)
        for rel, counts in outcome.clips.items():
            own = self.clip_counts.setdefault(rel, ClipCounts())
            own.written += counts["written"]
            own.rejected.update(counts["rejected"])
        self.errors += outcome.errors
        self.clip_seconds.update(outcome.clip_seconds)
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)

    @property
    def damaged(self) -> int:
        """Broken source files and samples lost to broken frames."""
        return sum(self.rejects[r] for r in DAMAGE) + sum(r.reason in DAMAGE for r in self.clip_rejects)

    @property
    def empty_splits(self) -> list[str]:
        """Splits that were planned and of which no sample was kept; where shards are missing that is not known."""
        if self.dry_run or self.stopped or self.shards_done < self.shards:
            return []
        return [s for s, n in sorted(self.planned_splits.items()) if n and not self.splits.get(s)]

    @property
    def empty_clips(self) -> dict[str, ClipCounts]:
        """Clips of which every window was rejected, and why."""
        return {rel: c for rel, c in sorted(self.clip_counts.items()) if c.rejected and not c.written}

    @property
    def exit_code(self) -> int:
        broken = self.failed or self.errors or self.stopped or self.damaged or "train" in self.empty_splits
        short = not self.dry_run and (not self.samples or self.shards_done < self.shards)
        return 1 if broken or short else 0

    def facts(self) -> dict[str, Any]:
        """For the run log and ``--json``."""
        keys = (
            "out",
            "dry_run",
            "planned",
            "samples",
            "made",
            "bytes",
            "shards",
            "shards_done",
            "splits",
            "clips",
            "errors",
            "failed",
            "stopped",
            "warnings",
        )
        d = {k: getattr(self, k) for k in keys} | {
            "rejects": dict(self.rejects),
            "seconds": round(self.seconds, 3),
        }
        d |= {"slowest_clips": self.slowest(), "peak_mb": round(self.peak_mb, 1), "exit_code": self.exit_code}
        if self.dry_run:
            d |= {k: getattr(self, k) for k in ("estimate_s", "estimate_bytes", "free_bytes", "no_estimate")}
        d["empty_clips"] = {rel: dict(c.rejected) for rel, c in self.empty_clips.items()}
        return d | {"clip_rejects": [[r.what, r.reason, r.detail] for r in self.clip_rejects]}

    def slowest(self, n: int = 3) -> list[tuple[str, float]]:
        return [(rel, round(s, 2)) for rel, s in self.clip_seconds.most_common(n)]

    def __str__(self) -> str:
        return "\n".join(map(one_line, self.lines()))  # names of clips may hold line breaks

    def lines(self) -> list[str]:
        lines = self._dry_lines() if self.dry_run else self._run_lines()
        lines += [f"  warning: {w}" for w in self.warnings[:20]]
        if len(self.warnings) > 20:
            lines.append(f"  ... and {len(self.warnings) - 20} more warnings")
        for r in self.clip_rejects[:20]:
            lines.append(f"  not used: {r.what}: {r.reason}" + (f" ({r.detail})" if r.detail else ""))
        if len(self.clip_rejects) > 20:
            lines.append(f"  ... and {len(self.clip_rejects) - 20} more sources not used")
        return lines

    def _dry_lines(self) -> list[str]:
        lines = [
            f"would make at most {counted(self.planned, 'sample')} in {counted(self.shards, 'shard')} from {counted(self.clips, 'clip')} ({_splits(self.splits)})"
        ]
        if self.estimate_bytes is None:
            lines.append(f"disk and time cannot be told: {self.no_estimate}")
        else:
            free = f", {human_bytes(self.free_bytes)} free" if self.free_bytes is not None else ""
            lines.append(f"disk about {human_bytes(self.estimate_bytes)}{free}")
            if self.free_bytes is not None and self.free_bytes < self.estimate_bytes:
                lines.append(f"  too little space in {self.out}")
        if self.estimate_s is not None:
            lines.append(
                f"time about {human_seconds(self.estimate_s)} with {counted(self.workers, 'worker')}"
            )
        return lines

    def _run_lines(self) -> list[str]:
        rate = f", {self.made / self.seconds:.2f} samples/s" if self.made and self.seconds else ""
        lines = [
            f"{counted(self.samples, 'sample')} ({_splits(self.splits)}) in {self.shards_done} of {counted(self.shards, 'shard')}, {human_bytes(self.bytes)}, in {self.out}"
        ]
        lines.append(f"  this run: {counted(self.made, 'sample')} in {human_seconds(self.seconds)}{rate}")
        if self.rejects:
            total = sum(self.rejects.values())
            lines.append(
                f"  rejected {total} of {self.planned}: "
                + ", ".join(f"{k} {n}" for k, n in self.rejects.most_common())
            )
        if len(self.clip_seconds) > 1:
            lines.append("  slowest clips: " + ", ".join(f"{rel} {s:.1f} s" for rel, s in self.slowest()))
        for e in self.errors[:10]:
            lines.append(f"  failed sample: {e}")
        for shard, why in list(self.failed.items())[:10]:
            lines.append(f"  failed shard {shard}: {why}")
        if missing := self.shards - self.shards_done - len(self.failed) if not self.stopped else 0:
            lines.append(
                f"  {counted(missing, 'shard')} not made yet: run the same command without --retry-failed"
            )
        if self.failed or self.errors:
            lines.append("  run the same command with --retry-failed: it makes only those again")
        for split in self.empty_splits:
            lines.append(f"  no {split} sample was kept: {_loosen(self.rejects)}")
        for rel, counts in list(self.empty_clips.items())[:10]:
            why = ", ".join(f"{k} {n}" for k, n in counts.rejected.most_common())
            lines.append(f"  nothing was kept of {rel}: {why}; {_loosen(counts.rejected)}")
        if (more := len(self.empty_clips) - 10) > 0:
            lines.append(f"  ... and of {more} more clips")
        if self.damaged:
            lines.append(
                "  some sources are damaged; pairs of the rest are made. blursynth audit shows where; repair or remove them"
            )
        if not self.samples and not self.failed and not self.stopped and self.shards_done == self.shards:
            lines.append("  no sample was kept: see the reasons above, and blursynth audit")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}; what is finished stays, the same command goes on")
        return lines


class RunLog:
    """``run.jsonl``: one object an event, appended; the only file here that says when and on which machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **facts: Any) -> None:
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        with open_own(self.path) as f:
            f.write(json.dumps(row) + "\n")

    @staticmethod
    def last_start(path: Path) -> dict[str, Any] | None:
        """The newest "start" event: which sources the shards were made from. A torn last line is passed over."""
        found = None
        try:
            with path.open(encoding="utf-8", errors="replace") as f:
                for line in f:
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError):
                        continue
                    if isinstance(row, dict) and row.get("event") == "start":
                        found = row
        except OSError:
            return None
        return found


def _loosen(rejects: Counter[str]) -> str:
    """What to do about the commonest reason."""
    reason = rejects.most_common(1)[0][0] if rejects else ""
    if reason.startswith("gate:"):
        return f"loosen --gate ({reason.removeprefix('gate:')}), or --gate off"
    if reason in ("cut", "duplicate", "gap", "rate", "size"):
        return "try a shorter --window; blursynth audit tells where the film breaks"
    return ADVICE.get(reason, "blursynth audit tells more")


def _splits(splits: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(splits.items())) or "none"
