"""What was left out, and was that right: of each reason one window, in pictures, with what was measured and the limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from blursynth.checks.origin import Missing
from blursynth.common.text import number
from blursynth.common.untrusted import group, real
from blursynth.motion.flow import estimate_pair
from blursynth.pairs.quality import parse_gate
from blursynth.preview.report import Card, words
from blursynth.recipe import Recipe
from blursynth.shards.picture import to_8_bits
from blursynth.sources.find import Clip
from blursynth.video.clip import Frame, read_frames
from blursynth.video.intervals import FOUND, NEAR, found_again, thumbnail, top_change
from blursynth.video.sharpness import SOFT

PACE = 6  # steps before and after the one at fault: they show what is usual
STEPS = ("cut", "duplicate", "gap", "rate", "size")  # reasons that lie between two frames
FRAMES = ("decode", "truncated", "unreadable", "interlaced")  # reasons that lie in one


@dataclass(frozen=True)
class LeftOut:
    """A window that gave no sample, as its sidecar lists it (``left_out``)."""

    key: str
    clip: str
    first: int
    last: int
    reason: str
    values: dict[str, float]
    sha256: Any = None  # of its source
    detail: str = ""

    @classmethod
    def of(cls, row: dict[str, Any], side: dict[str, Any]) -> LeftOut:
        first, last = (int(v) if (v := real(row.get(k))) >= 0 else 0 for k in ("first", "last"))
        values = {str(k): real(v) for k, v in group(row, "values").items() if math.isfinite(real(v))}
        clip, key, reason = (str(row.get(k) or "?") for k in ("clip", "key", "reason"))
        sha256, detail = group(side, "sources").get(clip), str(row.get("detail") or "")
        return cls(key, clip, first, last, reason, values, sha256, detail)

    @property
    def frame(self) -> int:
        """The frame at fault; the second one of a step."""
        return int(self.values.get("frame", (self.first + self.last) // 2))


def rejected_cards(
    found: Sequence[LeftOut],
    counts: dict[str, int],
    clip_of: Callable[[LeftOut], Clip],
    recipe: Recipe | None = None,
    pair_of: Callable[[Clip, LeftOut], list[np.ndarray]] | None = None,
    errors: Sequence[str] = (),
) -> list[Card]:
    """A card for each reason, the commonest first.

    clip_of: the source; pair_of: a pair that a gate kept out, blurred and sharp, (H, W, 3) uint8 RGB; both raise Missing
    where there is none any more. recipe: its limits. errors: of samples that failed, each begins with its key.
    """
    cards = []
    for reason in sorted(counts, key=lambda r: -counts[r]):
        # A typical one: the median of what the gate went by, else from the middle of the data set.
        name = reason.removeprefix("gate:")
        windows = sorted((w for w in found if w.reason == reason), key=lambda w: w.values.get(name, 0.0))
        facts = [("Left out for this reason", f"{counts[reason]:,}")]
        if not windows:
            says = f"{_meaning(reason)} Its windows are counted and not listed: no picture."
            cards.append(Card("no window of it is listed", f"left out: {reason}", facts, says=says))
            continue
        w = windows[len(windows) // 2]
        facts += [("Clip", w.clip), ("Frames", f"{w.first}–{w.last}")][: 1 + (w.last > w.first)]
        limits = [x.values[name] for x in windows if name in x.values]
        if len(limits) > 1:
            facts.append((f"{name} of all {len(limits)}", f"{number(limits[0])} to {number(limits[-1])}"))
        card = Card(w.key or f"{w.clip} · frame {w.frame}", f"left out: {reason}", facts)
        told = [_meaning(reason, w.frame), _measured(w, recipe), w.detail]
        told += [e for e in errors if e.startswith(f"{w.key} ")][:1]
        try:
            told.append(_picture(card, w, clip_of(w), pair_of))
        except Missing as e:
            told.append(f"No picture: {e}.")
        card.says = " ".join(filter(None, told))
        cards.append(card)
    return cards


def _meaning(reason: str, frame: int | str = "N") -> str:
    """What a reason says, for someone who reads it for the first time."""
    name = reason.removeprefix("gate:")
    if reason.startswith("gate:"):
        return f"{name}: {words('terms').get(name, 'a figure that the gate asks for')}."
    if reason.startswith("error: "):
        return "The sample failed with an error, though its frames were read."
    return words("reasons").get(reason, "").replace("{frame}", str(frame))


def _measured(w: LeftOut, recipe: Recipe | None) -> str:
    """What was measured, and the limit."""
    v, name = w.values, w.reason.removeprefix("gate:")
    if w.reason == "blur_px" and {"least_px", "most_px"} <= v.keys() and recipe:
        return f"It can be {number(v['least_px'])} to {number(v['most_px'])} px long; asked for: {recipe.blur_px} px."
    if w.reason == "soft" and "steepness" in v:
        return f"Its steepness is {number(v['steepness'])}; kept from {SOFT} ({words('terms')['steepness']})."
    if w.reason.startswith("gate:") and name in v and recipe:
        limits = [f"{sign} {number(bound)}" for n, sign, bound in parse_gate(recipe.gate) if n == name]
        return f"Here it is {number(v[name])}; kept: {' and '.join(limits) or 'as the recipe says'}."
    return ""


def _picture(
    card: Card, w: LeftOut, clip: Clip, pair_of: Callable[[Clip, LeftOut], list[np.ndarray]] | None
) -> str:
    """Put the window's pictures on its card; returns what they say. Raises Missing where there are none."""
    still = clip.info.kind == "still"
    of_pair = still or w.reason not in (*STEPS, *FRAMES)
    before, after = (0, 1) if of_pair else (1, 0) if w.reason in STEPS else (1, 1)
    seen = [f for f in _frames(clip, w.frame - before, w.frame + after) if f.rgb is not None]
    filmed, note = [to_8_bits(f.rgb) for f in seen if f.rgb is not None], ""
    pictures = [("The picture" if still else f"Frame {f.index}", rgb) for f, rgb in zip(seen, filmed)]
    if of_pair and pair_of and not still:
        try:
            pictures = list(zip(("Blurred", "Sharp"), pair_of(clip, w)))
        except Missing as e:
            note = f"Shown are frames: {e}."
    if not pictures:
        raise Missing("its frames cannot be decoded")
    card.show(*pictures)
    card.flow_note = "the motion from the one to the other cannot be told"
    if len(filmed) == 2 and filmed[0].shape == filmed[1].shape and w.reason != "cut":
        card.flow = estimate_pair("dis", filmed[0], filmed[1]).forward
        card.flow_note = f"DIS, frame {seen[0].index} to {seen[1].index}"
    return (
        note if of_pair else _step_figures(w.reason, _frames(clip, w.frame - PACE, w.frame + PACE), w.frame)
    )


def _frames(clip: Clip, first: int, last: int) -> list[Frame]:
    """Frames ``first..last``, both in, cut to what the clip has."""
    first, last = max(first, 0), min(last, clip.info.frames - 1)
    return list(read_frames(clip.info, first, last)) if first <= last else []


def _step_figures(reason: str, frames: list[Frame], at: int) -> str:
    """What was measured of the step to frame ``at``, and the limit, out of the frames around it."""
    thumbs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    times: dict[int, float] = {}
    for a, b in pairwise(frames):
        if a.rgb is not None and b.rgb is not None and a.rgb.shape == b.rgb.shape:
            thumbs[b.index] = thumbnail(a.rgb), thumbnail(b.rgb)
        if a.time_s is not None and b.time_s is not None:
            times[b.index] = 1000 * (b.time_s - a.time_s)
    if reason == "cut" and at in thumbs:
        one, other = thumbs[at]
        (there, ahead), (here, behind) = found_again(one, other), found_again(other, one)
        if (blocks := ahead + behind) >= 8:
            share = (
                f"{(there + here) / blocks:.0%} of the picture's blocks are found again in the other frame"
            )
            return f"{share}; below {FOUND:.0%} is a cut."
    if reason == "duplicate" and at in thumbs:
        changes = {i: top_change(cv2.absdiff(*pair)) for i, pair in thumbs.items()}
        told = f"It changes by {number(changes[at], 2)} of 255, the steps around it by {number(_usual(changes, at), 2)}"
        return f"{told}; up to {NEAR:.0%} of the usual change is a repeat."
    if reason in ("gap", "rate") and at in times:
        return f"It takes {number(times[at])} ms, the steps around it {number(_usual(times, at))} ms."
    return ""


def _usual(steps: dict[int, float], at: int) -> float:
    others = [v for i, v in steps.items() if i != at]
    return float(np.median(others)) if others else math.nan
