"""The audit's report, and how people see it: a table of clips with what to do under it."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from blursynth.common.text import counted
from blursynth.video.verdict import ClipAudit

_PLACES = 12  # cuts or repeats of one clip that are spelled out
_SHOWN = 3  # rejected items of one reason that are spelled out
_COLOUR = {"ok": "green", "warn": "yellow", "reject": "red"}


class RejectedItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    what: str
    reason: str
    detail: str


class AuditReport(BaseModel):
    model_config = ConfigDict(extra="forbid")

    clips: list[ClipAudit]
    rejects: list[RejectedItem] = Field(description="looked like clips and cannot be used at all")

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(c.verdict for c in self.clips)

    @property
    def exit_code(self) -> int:
        """0 when at least one clip can be used as it is and every file could be read."""
        if any(r.reason == "unreadable" for r in self.rejects):
            return 1
        return 0 if any(c.verdict != "reject" for c in self.clips) else 1

    def to_json(self) -> str:
        return self.model_dump_json(indent=1)

    def to_csv(self) -> str:
        """A row a clip; lists of frame numbers are parted by spaces."""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(ClipAudit.model_fields), lineterminator="\n")
        writer.writeheader()
        for c in self.clips:
            row = c.model_dump()
            for key in ("gaps", "cuts", "duplicates"):
                row[key] = " ".join(map(str, row[key]))
            row["faults"] = " ".join(f"{k}={n}" for k, n in c.faults.items())
            writer.writerow(row | {"advice": "; ".join(c.advice)})
        return out.getvalue().rstrip("\n")

    def __str__(self) -> str:
        return audit_text(self)


LEGEND = (
    "motion px: from one frame to the next, median / fastest 5% of the picture. soft: share of the frames that are more blurred "
    "than the sharpest near them. noise: in codes of 0 to 255. windows: without cuts, repeats and damage / all."
)
"""What the columns of the table say."""


def audit_view(report: AuditReport) -> RenderableType:
    """Table, advice and rejected items, as one rich renderable."""
    table = Table(title=None, header_style="bold", pad_edge=False)
    table.add_column("clip", overflow="fold")
    for name in (
        "verdict",
        "frames",
        "size",
        "fps",
        "cuts",
        "repeats",
        "faults",
        "motion px",
        "soft",
        "clipped",
        "noise",
        "windows",
    ):
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    for c in report.clips:
        table.add_row(escape(c.clip), Text(c.verdict, style=_COLOUR[c.verdict]), *_cells(c))
    parts: list[RenderableType] = [table]
    for c in report.clips:
        if c.advice:
            parts.append(Text(c.clip, style=_COLOUR[c.verdict]))
            parts.extend(Text(f"  - {a}") for a in c.advice)
        parts.extend(
            Text(f"  {c.clip}: {name} at frame {_places(at)}")
            for name, at in (("cuts", c.cuts), ("repeats", c.duplicates), ("gaps", c.gaps))
            if at
        )
    if report.rejects:
        parts.append(Text(f"Not usable ({len(report.rejects)}):", style="red"))
        by_reason: dict[str, list[str]] = {}
        for r in report.rejects:
            by_reason.setdefault(r.reason, []).append(r.detail)
        for reason, details in by_reason.items():
            parts.extend(Text(f"  - [{reason}] {d}") for d in details[:_SHOWN])
            if len(details) > _SHOWN:
                parts.append(Text(f"  - [{reason}] and {len(details) - _SHOWN} more (all of them: --json)"))
    if report.clips:
        parts.append(Text(LEGEND, style="dim"))
    v = report.verdicts
    parts.append(
        Text(
            f"{counted(len(report.clips), 'clip')}: {v['ok']} ok, {v['warn']} with warnings, {v['reject']} to leave out"
        )
    )
    return Group(*parts)


def audit_text(report: AuditReport) -> str:
    """The same as plain text, as wide as the terminal."""
    out = io.StringIO()
    width = max(120, shutil.get_terminal_size((140, 40)).columns)
    Console(file=out, width=width, highlight=False).print(audit_view(report))
    return out.getvalue().rstrip("\n")


def _places(frames: list[int]) -> str:
    more = f" and {len(frames) - _PLACES} more (all of them: --json)" if len(frames) > _PLACES else ""
    return ", ".join(map(str, frames[:_PLACES])) + more


def _cells(c: ClipAudit) -> list[str]:
    fps = "?" if c.fps is None else f"{c.fps:.4g}"
    if c.rate_jitter and c.rate_jitter > 0.25:
        fps += " (varies)"
    return [
        f"{c.read}" if c.read == c.frames else f"{c.read}/{c.frames}",
        f"{c.width}x{c.height}" + ("" if c.transfer == "srgb" else f" {c.transfer}"),
        fps,
        str(len(c.cuts)),
        str(len(c.duplicates)) + (f" (1/{c.duplicate_period})" if c.duplicate_period else ""),
        str(sum(c.faults.values())),
        f"{c.motion_px:.1f} / {c.motion_p95_px:.1f}",
        f"{c.soft_share:.0%}",
        f"{c.clipped_high:.1%}",
        f"{c.noise_sigma:.1f}",
        f"{c.windows}/{c.windows_possible}",
    ]
