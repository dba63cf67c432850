"""The JSON of a sample, schema 1, as others rely on it. More keys may come; those here stay."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA = 1
KEY = re.compile(r"[A-Za-z0-9_-]+")
FORMATS = ("png", "webp")
"""Of ``blur`` and ``sharp``; ``linear`` is PNG only, WebP has no 16 bits."""
MAX_JSON = 1 << 20
"""Bytes; a sample's JSON is a few kB."""
SHA256 = r"^[0-9a-f]{64}$"
KEPT = re.compile(r"(crf|crf_out|profile)-(?P<sha12>[0-9a-f]{12})\.npy")
"""The name that a recipe's FILE.npy has beside the shards: the key, and the beginning of its content's sha256."""


class _Part(BaseModel):
    # Built when the first JSON is read: who only writes shards never reads one.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True, defer_build=True)


class Donor(_Part):
    """A picture that a moving layer over a still was cut from."""

    clip: str
    path: str
    sha256: str = Field(pattern=SHA256)


class Source(_Part):
    dataset: str | None
    clip: str
    path: str  # relative to its --src
    sha256: str = Field(pattern=SHA256)
    fps: float | None
    first: int | None = Field(ge=0)
    last: int | None
    target: int | None
    layers: list[Donor] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Source:
        frames = (self.first, self.target, self.last)
        known = [f for f in frames if f is not None]
        if known and (len(known) < 3 or sorted(known) != list(frames)):
            raise ValueError("target is not within first..last")
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError("path is not relative")
        return self


class Substeps(_Part):
    mean: float
    max: int


class Shake(_Part):
    px: float = Field(ge=0)
    path: list[list[float]] = Field(min_length=2)
    border: list[int] = Field(min_length=4, max_length=4)  # left, top, right, bottom


class Layer(_Part):
    """Something that moves over a still: along an arc, px long, whose heading (degrees, 0 right, 90 down) at the
    target's instant turns by ``turn`` over the exposure. box: left, top, right, bottom at that instant, in the pair."""

    px: float = Field(ge=0)
    heading: float
    turn: float
    box: list[int] = Field(min_length=4, max_length=4)


class Exposure(_Part):
    """Null throughout for a pair that was not made here."""

    window: int | None = Field(ge=1)
    stride: int | None = Field(ge=1)
    fps_up: int | None = Field(ge=1)
    interp: str | None
    profile: str | None
    shutter_ms: float | None
    duty: float | None
    readout_ms: float | None
    substeps: Substeps | None
    blur_px: float | None = None
    shake: Shake | None = None
    layers: list[Layer] | None = None
    integrator: Literal["triton", "torch"] | None = None  # on a GPU


class Camera(_Part):
    crf: str | None
    highlights: Any
    noise: Any


class Flow(_Part):
    """Null throughout with ``--interp none``."""

    median_px: float | None
    p95_px: float | None
    max_px: float | None
    fb_error_px: float | None
    occluded: float | None


class Quality(_Part):
    score: float | None
    flags: list[str]


class SampleJson(_Part):
    schema_: Literal[1] = Field(alias="schema")
    key: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    seed: int | None
    recipe_sha256: str = Field(pattern=SHA256)
    version: str
    source: Source
    exposure: Exposure
    camera: Camera
    flow: Flow
    quality: Quality


_PARTS: dict[str, type[BaseModel]] = {
    "": SampleJson,
    "source": Source,
    "exposure": Exposure,
    "camera": Camera,
    "flow": Flow,
    "quality": Quality,
}
REQUIRED: dict[str, tuple[str, ...]] = {
    group: tuple(f.alias or name for name, f in part.model_fields.items() if f.is_required())
    for group, part in _PARTS.items()
}
"""Group of a sample's JSON ("": the outermost) -> the keys it must hold."""


def problem_with(meta: Any, key: str) -> str | None:
    """Why a sample's JSON lacks what every reader may count on, or None. Values are left to who uses them."""
    if not isinstance(meta, dict):
        return "JSON is not an object"
    if meta.get("schema") != SCHEMA:
        return f"schema is {meta.get('schema')!r}, not {SCHEMA}"
    for group, names in REQUIRED.items():
        inside = meta if not group else meta[group]
        if not isinstance(inside, dict):
            return f"JSON key {group!r} is not an object"
        for name in names:
            if name not in inside:
                return f"JSON lacks {(group + '.' if group else '') + name!r}"
    if meta["key"] != key:
        return "JSON is of another sample"
    return None


def parse_sample_json(data: bytes) -> SampleJson:
    """Check and type the JSON of a sample. Raises ValueError with one line that names the key that is wrong."""
    try:
        return SampleJson.model_validate(json.loads(data))
    except ValidationError as e:
        first = e.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except ValueError as e:  # not JSON, or not text
        raise ValueError(f"not JSON ({e})") from None
