"""The film or picture that a sample was made from, found again: by its path below a source, and the same bytes; and what was left out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blursynth.common.errors import UserError
from blursynth.recipe import Recipe
from blursynth.run.outcome import PlanClip, Rejected, Run, WindowSpec
from blursynth.run.task import default_synthesizer, sample_members
from blursynth.run.windows import read_windows
from blursynth.shards.picture import decode_image, to_8_bits
from blursynth.sources.find import Clip, SourceError, find_clips
from blursynth.sources.splits import clip_sha256
from blursynth.video.clip import ClipError, ClipInfo, probe_clip, probe_still, read_as


class Missing(UserError):
    """A source that is not there any more; the message says what was looked for, or what is there instead."""


class Origin:
    """Finds the clips of a data set; a clip that is asked for again is not read again.

    srcs: where its sources lay, or lie now; recipe: what it was made by, which says how they are read; search: whether a
    source that is not where it was is looked for among all others, which reads them.
    """

    def __init__(self, srcs: Sequence[str], recipe: Recipe, search: bool = True) -> None:
        self.srcs, self.recipe, self.search = list(srcs), recipe, search
        self._found: dict[tuple[str, Any], Clip | Missing] = {}
        self._all: list[Clip] | None = None

    def clip(self, told: dict[str, Any]) -> Clip:
        """The clip of a sample's ``source`` group, or of a donor's: path, sha256; fps, dataset and clip where they stand.

        The path first, but the bytes decide: a source that was moved or renamed is still the source. Raises Missing.
        """
        rel, sha256 = str(told["path"]), told.get("sha256")
        if (rel, sha256) not in self._found:
            self._found[rel, sha256] = self._find(rel, sha256)
        found = self._found[rel, sha256]
        if isinstance(found, Missing):
            raise Missing(str(found))
        info = (
            replace(found.info, fps=told["fps"]) if "fps" in told else found.info
        )  # as of a set that is known
        name, dataset = str(told.get("clip") or found.name), told.get("dataset")
        return replace(
            found, info=info, name=name, rel=rel, dataset=dataset if isinstance(dataset, str) else None
        )

    def _find(self, rel: str, sha256: Any) -> Clip | Missing:
        note = ""
        try:
            if (there := self._below(rel)) is not None:
                if clip_sha256(there) == sha256:
                    return Clip(Path(there.path).stem, None, rel, None, read_as(there, self.recipe)[0])
                note = f"{there.path}: its bytes are not those the sample was made from"
        except (OSError, ClipError):
            pass  # what is wrong with it is told below, should no other clip be the source
        try:
            others = self._others() if self.search else []
        except SourceError as e:
            return Missing(note or str(e))
        for clip in others:
            try:
                if clip_sha256(clip.info) == sha256:
                    return replace(clip, info=read_as(clip.info, self.recipe)[0])
            except OSError:
                continue
        return Missing(
            note or f"{rel} is not among {', '.join(self.srcs) or 'sources: run.jsonl names none'}"
        )

    def _others(self) -> list[Clip]:
        if self._all is None:
            r = self.recipe
            self._all = find_clips(self.srcs, r.fps or r.fps_unknown, r.deinterlace, r.stills)[0]
        return self._all

    def _below(self, rel: str) -> ClipInfo | None:
        """The clip where it was, without a look at all others. Raises ClipError, OSError."""
        # `rel` comes out of a shard: it may name a file below the sources, never climb out of them.
        if ".." in Path(rel).parts or Path(rel).is_absolute():
            return None
        for root in map(Path, self.srcs):
            for path in (root / rel, root.parent / rel, root):
                if path.name == Path(rel).name and path.exists():
                    if self.recipe.stills:
                        return probe_still(path)
                    return probe_clip(
                        path, self.recipe.fps or self.recipe.fps_unknown, self.recipe.deinterlace
                    )
        return None


def pair_left_out(
    clip: Clip, key: str, window: WindowSpec, recipe: Recipe, rife_weights: str | None = None
) -> list[np.ndarray]:
    """Blurred and sharp, (H, W, 3) uint8 RGB, of a window of film that a gate kept out, as they were thrown away.

    Raises Missing where they cannot be made.
    """
    if not 0 <= window.first < window.last < clip.info.frames:
        raise Missing("its window is not within the film")
    # Gates come last: without them the sample is the same (the whole of it, where tiles are cut).
    recipe = recipe.model_copy(update={"gate": "off", "blur_px": None, "tile": None, "store": "8bit"})
    source = PlanClip(clip, "train", key.rsplit("_", 2)[0])
    try:
        maker = default_synthesizer(recipe, rife_weights)
        ((_, frames, fault),) = read_windows(Run(source, (window,)))
        if fault is not None:
            raise fault
        ((_, members),) = sample_members(recipe, source, window, frames, maker)
    except (UserError, Rejected, ValueError, RuntimeError, OSError, ImportError) as e:
        raise Missing(f"its pair cannot be made again ({' '.join(str(e).split())[:200]})") from None
    found = {name.partition(".")[0]: data for name, data in members.items()}
    return [to_8_bits(decode_image(found[role])) for role in ("blur", "sharp")]
