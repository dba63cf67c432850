"""Photos of a camera -> a recipe that makes the like: noise, JPEG, clipped light, exposure times."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from blursynth.camera.noise import add_noise, parse_noise
from blursynth.camera.noise_estimate import Noise, estimate_noise
from blursynth.camera.response import jpeg, load_response
from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UsageError
from blursynth.common.untrusted import group, parse_json
from blursynth.exchange.members import decode_any
from blursynth.exchange.photo_file import PhotoFacts, photo_facts
from blursynth.exchange.statistics import LIGHTS, Statistics, chart, describe, distances, measure
from blursynth.png.chunks import is_signed, signed
from blursynth.shards.picture import decode_image, to_8_bits
from blursynth.shards.shard import read_shard
from blursynth.shards.store import require_local

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MOST = 64
"""Photos, and samples of the other set, that are measured, spread over all."""
CHARTS, CHART = 3, 1024
"""Photos, and side of their middle in px, on which the noise before their JPEG is tried."""
ROUNDS = 6
"""Corrections of the noise for what the JPEG takes of it."""


@dataclass(frozen=True)
class MatchReport:
    """b1, b2: noise before the JPEG, variance b1 x + b2^2 in linear RGB."""

    photos: Statistics
    b1: float
    b2: float
    unreadable: list[str]
    other: Statistics | None
    out: Path

    @property
    def exit_code(self) -> int:
        return 1 if self.unreadable else 0

    def __str__(self) -> str:
        p = self.photos
        lines = [
            f"{p.pictures} photos -> {self.out}",
            *(f"  {line}" for line in describe(p, self.b1, self.b2)),
        ]
        if self.other is not None:
            lines += ["", *distances(p, self.other), f"noise of both: {self.out.with_suffix('.png')}"]
        lines += [f"cannot be read, left out: {name}" for name in self.unreadable[:10]]
        return "\n".join(lines)


def match(photos: Sequence[str | Path], out: str | Path, against: str | Path | None = None) -> MatchReport:
    """Measure photos and write a recipe that gives blur their noise and JPEG.

    Args:
        photos: JPEG or other pictures, or folders of them; the camera's curve is taken for sRGB.
        out: the recipe to write, FILE.toml.
        against: shards made by `blursynth make`, to be compared with the photos; a chart goes beside ``out`` as ``.png``, over an
            earlier chart only.

    Returns what was measured, noise in linear light with white = 1. Raises UsageError where nothing can be measured or written.
    """
    files, out = _files(photos), Path(out)
    plot = out.with_suffix(".png") if against is not None else None
    if out.suffix.lower() != ".toml":
        raise UsageError(f"--out {out}: must end in .toml, as recipes do")
    for given in map(Path, photos):
        for target in (out, plot) if plot else (out,):
            if target.exists() and target.resolve().is_relative_to(given.resolve()):
                raise UsageError(f"{target}: is one of the photos given; choose another --out")
    if plot and os.path.lexists(plot) and not is_signed(plot):
        raise UsageError(
            f"{plot}: the chart goes there, and it is no chart of match; move it away or give another --out"
        )
    seen, unreadable = [], []
    for path in files:
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        rgb = decode_any(data)
        if rgb is None:
            unreadable.append(str(path))
            continue
        seen.append((to_8_bits(rgb), photo_facts(data)))
    if not seen:
        raise UsageError(
            f"{files[0]}: cannot be read as a picture, nor can any other file given; give photos or folders of them"
        )
    measured, noise = measure(seen)
    b1, b2 = _before_jpeg(noise, measured, [rgb for rgb, _ in seen[:CHARTS]])
    other = None
    if plot:
        other, other_noise = measure(list(_samples(Path(require_local(str(against), "match")))))
        write_atomic(plot, signed(chart(noise, other_noise)))
    write_atomic(out, _recipe(measured, b1, b2).encode())
    return MatchReport(measured, b1, b2, unreadable, other, out)


def _files(photos: Sequence[str | Path]) -> list[Path]:
    files: list[Path] = []
    for given in map(Path, photos):
        if not given.exists():
            raise UsageError(f"{given}: no such file or folder")
        files += _inside(given) if given.is_dir() else [given]
    if not files:
        raise UsageError("no photos found; give picture files, or folders that hold some")
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, MOST).astype(int))]


def _inside(folder: Path) -> list[Path]:
    """Photos below a folder; hidden ones are thumbnails, or thrown away."""
    below = ((p, p.relative_to(folder).parts) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return sorted(
        p
        for p, (*folders, name) in below
        if not name.startswith(".") and not any(f.startswith((".", "@")) for f in folders)
    )


def _samples(data: Path) -> Iterator[tuple[np.ndarray, PhotoFacts]]:
    """Blurred pictures of made shards with what their JSON says of their JPEG."""
    tars = sorted(data.glob("*.tar"))
    if not tars:
        raise UsageError(f"{data}: holds no shards; give a folder that blursynth make wrote")
    each = -(-MOST // len(tars))
    for tar in tars[:MOST]:
        for n, sample in enumerate(read_shard(tar)):
            if n == each:
                break
            name = next((k for k in sample if k.startswith("blur.")), None)
            if name is None:
                continue
            quality = group(parse_json(sample.get("json")) or {}, "camera").get("jpeg")
            quality = quality if type(quality) is int else None
            facts = PhotoFacts(quality, "4:2:0" if quality else None)
            yield to_8_bits(decode_image(sample[name], f"{tar}: {sample['__key__']}.{name}")), facts


def _before_jpeg(noise: Noise, measured: Statistics, photos: Sequence[np.ndarray]) -> tuple[float, float]:
    """(b1, b2) of noise that, behind the photos' JPEG and by the same estimator, gives the noise found in them.

    Tried on the photos themselves, freed of their noise by a blur: a JPEG treats noise by what it lies on.
    """
    b1, b2 = float(noise.a.mean()), float(np.sqrt(noise.b.mean()))
    if measured.quality is None:
        return float(f"{min(b1, 0.1):.4g}"), float(f"{min(b2, 0.1):.4g}")
    quality, srgb = round(sum(measured.quality) / 2), load_response("srgb")
    charts = []
    for rgb in photos:
        y, x = (max(0, (n - CHART) // 2) for n in rgb.shape[:2])
        light = srgb.decode(np.ascontiguousarray(rgb[y : y + CHART, x : x + CHART]))[..., :3]
        charts.append(cv2.GaussianBlur(light, (0, 0), 4))
    wanted = noise.a.mean() * LIGHTS + noise.b.mean()
    before = np.maximum(wanted, 1e-9)
    for _ in range(ROUNDS):
        model = parse_noise("rgb:{},{}".format(*_line(LIGHTS, before)))
        got = []
        for i, light in enumerate(charts):
            codes, _ = add_noise(light, srgb, model, (), np.random.default_rng(i), 1.0)
            seen = estimate_noise([jpeg(codes, quality)], srgb)
            got.append([seen.variance(v).mean() for v in LIGHTS])
        before *= np.clip(wanted / np.maximum(np.median(got, 0), 1e-9), 0.4, 2.5)
    return _line(LIGHTS, before)


def _line(x: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """(b1, b2) of variance b1 x + b2^2, neither negative nor above 0.1, by relative least squares."""
    a, b = np.linalg.lstsq(
        np.stack([x, np.ones_like(x)], 1) / variance[:, None], np.ones(len(x)), rcond=None
    )[0]
    if b < 0:
        a, b = 1 / np.mean(x / variance), 0.0
    if a < 0:
        a, b = 0.0, 1 / np.mean(1 / variance)
    return float(f"{min(a, 0.1):.4g}"), float(f"{min(np.sqrt(b), 0.1):.4g}")


def _recipe(s: Statistics, b1: float, b2: float) -> str:
    low, high = s.quality or (0, 0)
    jpeg_line = f'jpeg = "{low if low == high else f"{low}-{high}"}"' if s.quality else 'jpeg = "off"'
    comments = "\n".join(f"# {line}" for line in describe(s, b1, b2))
    return (
        f'name = "match"\ncite = "measured in {s.pictures} photos by blursynth match"\n{comments}\n'
        f'noise = "rgb:{b1:g},{b2:g}"\n{jpeg_line}\nhighlights = "auto"\ngate = "default"\n'
    )
