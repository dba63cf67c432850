"""The catalogue of public sources (``data_manifest.json``), typed and checked; ``find`` recognises folders by it."""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from blursynth.common.errors import UserError

FILE = "data_manifest.json"
Split = Literal["train", "val", "test"]


class ManifestError(UserError, ValueError):
    """The catalogue is missing or malformed; the message names the file and what is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layout(_Strict):
    """How clips of a data set lie on disk."""

    pattern: str = Field(
        description="regex searched in a clip's absolute posix path; groups: clip, split, window"
    )
    holds: Literal["frames", "video"]
    splits: dict[str, Split] = Field(
        default_factory=dict, description="what the split group says -> official split"
    )

    @field_validator("pattern")
    @classmethod
    def _regex(cls, v: str) -> str:
        try:
            groups = re.compile(v).groupindex
        except re.error as e:
            raise ValueError(f"not a regular expression: {e}") from None
        if unknown := set(groups) - {"clip", "split", "window"}:
            raise ValueError(f"unknown groups {sorted(unknown)}")
        return v


class Trap(_Strict):
    """Folders that look like a high-rate source and are not."""

    pattern: str = Field(description="regex searched in the absolute posix path of a folder of frames")
    why: str
    use: str = Field(description="what to give instead")

    @field_validator("pattern")
    @classmethod
    def _regex(cls, v: str) -> str:
        re.compile(v)
        return v


class Dataset(_Strict):
    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    home: str = Field(pattern=r"^https?://")
    mirror: str | None = None
    licence: str
    fps: float | None = Field(gt=0, description="frames per second of its source frames")
    source: bool = Field(description="holds frames at a high rate, which blur can be made from")
    layouts: list[Layout] = Field(default_factory=list)
    split_rule: str
    window_rule: str
    traps: list[Trap] = Field(default_factory=list)
    citation: str
    notes: str = ""


class Manifest(_Strict):
    schema_version: Literal[1]
    datasets: list[Dataset]

    @field_validator("datasets")
    @classmethod
    def _unique(cls, v: list[Dataset]) -> list[Dataset]:
        ids = [d.id for d in v]
        if len(set(ids)) != len(ids):
            raise ValueError("two data sets with one id")
        for d in v:
            if d.source != bool(d.layouts):
                raise ValueError(f"{d.id}: a source has at least one layout, anything else has none")
        return v

    def recognise(
        self, path: str, holds: Literal["frames", "video"]
    ) -> tuple[Dataset, re.Match[str], Layout] | None:
        """The data set whose layout a clip's absolute posix path follows."""
        for d in self.datasets:
            for layout in d.layouts:
                if layout.holds == holds and (m := re.search(layout.pattern, path)):
                    return d, m, layout
        return None

    def trap(self, folder: Path) -> Trap | None:
        """The trap that a folder of frames is, if any."""
        for d in self.datasets:
            for trap in d.traps:
                if re.search(trap.pattern, folder.as_posix()):
                    return trap
        return None


def manifest_path() -> Path:
    """Where the catalogue lies: the checkout's root, or share/blursynth of the installed wheel."""
    places = [Path(__file__).resolve().parents[2] / FILE]
    try:
        for f in metadata.files("blursynth") or []:
            if f.name == FILE:
                places.append(Path(str(f.locate())).resolve())
    except metadata.PackageNotFoundError:
        pass
    places.append(Path(sys.prefix) / "share" / "blursynth" / FILE)
    for p in places:
        if p.is_file():
            return p
    raise ManifestError(f"{FILE}: not found in {', '.join(map(str, places))}; install blursynth again")


@lru_cache(maxsize=4)
def load_manifest(path: Path | None = None) -> Manifest:
    """Read and check the catalogue. Raises ManifestError."""
    where = path or manifest_path()
    try:
        return Manifest.model_validate(json.loads(where.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as e:
        raise ManifestError(f"{where}: {e}") from None
