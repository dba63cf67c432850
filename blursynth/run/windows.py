"""Windows of frames out of a clip, in one forward pass, and why one may not be exposed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from blursynth.common.kept import Kept
from blursynth.pairs.layers import Donor
from blursynth.run.outcome import PlanClip, Rejected, Run, WindowSpec
from blursynth.video.clip import Frame, read_frames
from blursynth.video.intervals import IntervalChecker

# Frames read before the first window: they teach the checker the clip's pace, so that it can tell a repeat.
LEAD_IN = 8
_PICTURES = Kept(128 << 20)
"""Decoded donors. A decoder takes as long as all else that a layer needs."""
JUMP = 64  # frames between windows from which a second pass, with its seek, costs less than decoding through


def read_windows(run: Run) -> Iterator[tuple[WindowSpec, list[Frame], Rejected | None]]:
    """Each window of the run once: its frames, or the reason it may not be exposed.

    One forward pass; no more frames are held than the windows that are open need.
    """
    if run.source.still:
        (frame,) = read_frames(run.source.clip.info, 0, 0)  # decoded once for all its samples
        fault = Rejected(frame.fault) if frame.fault else None
        yield from ((w, [] if fault else [frame], fault) for w in run.windows)
        return
    for windows in _passes(run):
        todo = sorted(windows, key=lambda w: (w.last, w.first))
        checker = IntervalChecker()
        held: dict[int, Frame] = {}
        faults: dict[int, str] = {}  # frame -> why it cannot be used
        cuts: dict[int, str] = {}  # frame -> why the interval that ends at it cannot
        n = 0
        first = min(w.first for w in todo)
        for frame in read_frames(run.source.clip.info, max(first - LEAD_IN, 0), todo[-1].last):
            i = frame.index
            reason = checker.push(frame)
            if frame.fault or frame.rgb is None:
                faults[i] = frame.fault or "decode"
            else:
                held[i] = frame
            if reason:
                cuts[i] = reason
            cuts |= checker.revised  # what it could not know when it saw it
            while n < len(todo) and todo[n].last <= i:
                w = todo[n]
                why = _first_fault(w, held, faults, cuts)
                yield w, ([] if why else [held[k] for k in range(w.first, w.last + 1)]), why
                n += 1
            if n == len(todo):
                break
            keep = min(w.first for w in todo[n:])
            for store in (held, faults, cuts):
                for k in [k for k in store if k < keep]:
                    del store[k]  # type: ignore[attr-defined]
        # The reader promised every index; should it break that, say so instead of losing windows.
        for w in todo[n:]:
            yield w, [], _first_fault(w, held, faults, cuts) or Rejected("truncated")


def find_donors(source: PlanClip, w: WindowSpec, picture: np.ndarray) -> list[Donor]:
    """A window's donors, each decoded when its pixels are asked for, and kept for the next sample.

    picture: the source's own, RGB uint8 or uint16 (H, W, 3), which may be among them.
    """
    return [_donor(d, picture if d.clip.rel == source.clip.rel else None) for d in w.donors]


def _donor(donor: PlanClip, picture: np.ndarray | None) -> Donor:
    path = donor.clip.info.path
    try:
        st = Path(path).stat()
        name = (path, st.st_size, st.st_mtime_ns)
    except OSError:  # what is not there has no name to be known by
        return Donor(object(), lambda: None)

    def read() -> np.ndarray | None:
        if picture is not None:
            return picture
        (frame,) = read_frames(donor.clip.info, 0, 0)
        return None if frame.fault else frame.rgb

    return Donor(name, read if picture is not None else lambda: _PICTURES.get(name, read))


def _passes(run: Run) -> Iterator[list[WindowSpec]]:
    """Split where windows lie far apart (``--max-samples``): frames between are then not decoded."""
    gap = JUMP if run.source.clip.info.kind == "video" else LEAD_IN
    part: list[WindowSpec] = []
    end = -1
    for w in run.windows:
        if part and w.first - end - 1 > gap:
            yield part
            part = []
        part.append(w)
        end = max(end, w.last) if len(part) > 1 else w.last
    if part:
        yield part


def _first_fault(
    w: WindowSpec, held: dict[int, Frame], faults: dict[int, str], cuts: dict[int, str]
) -> Rejected | None:
    """The first reason in time; a frame that is missing tells more than the interval it spoils."""
    for i in range(w.first, w.last + 1):
        if i in faults:
            return Rejected(faults[i], {"frame": i})
        if i > w.first and i in cuts:
            return Rejected(cuts[i], {"frame": i})
        if i not in held:
            return Rejected("truncated", {"frame": i})
    return None
