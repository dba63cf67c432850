"""A second renderer with known exposures, made apart from the product and from truth.py: what models are judged on.

A pinhole camera with six degrees of freedom shakes in front of planes at several depths (so that near things move more),
read out row by row (rolling shutter); objects move on their own; lamps are brighter than white; the sensor adds shot and
read noise. Every pixel's ray meets every plane: nothing of blursynth is used.

    python benchmarks/scenes.py --out scratch/scenes.png      # a look at some of them
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import cv2
import numpy as np
import skimage
import truth

SIZE = (320, 480)
SUBSTEPS = 96
SHOT_NOISE, READ_NOISE = 2e-4, 1e-5
"""Variance of the noise, a * light + b with white at 1: a camera at a few hundred ISO in fair light."""
VALIDATION = ("coffee.png", "rocket.jpg", "motorcycle_left.png", "brick.png", "grass.png", "gravel.png")
TEST = ("astronaut.png", "chelsea.png", "retina.jpg", "hubble_deep_field.jpg", "ihc.png")
"""Pictures of scikit-image; scikit-learn's two, where it is installed, join the test's. None is ever trained on."""
Pair = tuple[np.ndarray, np.ndarray]  # blurred, sharp: RGB uint8 (H, W, 3)


@cache
def pictures(names: tuple[str, ...]) -> list[np.ndarray]:
    """Linear light, RGB float32."""
    files = [Path(skimage.__file__).parent / "data" / n for n in names]
    if names == TEST:
        try:
            import sklearn

            files += [
                Path(sklearn.__file__).parent / "datasets/images" / n for n in ("china.jpg", "flower.jpg")
            ]
        except ImportError:
            pass
    return [truth.to_linear(cv2.imread(str(f))[..., ::-1]) for f in files]


@dataclass
class Plane:
    """A picture that stands at a depth, facing the camera at rest; `light` covers its own frame plus a margin."""

    light: np.ndarray  # float32 (h, w, 3), linear
    alpha: np.ndarray | None  # float32 (h, w); None: everywhere
    corner: np.ndarray  # of `light` in the reference view, px
    depth: float
    velocity: np.ndarray  # px an exposure, in the reference view


def wave(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A smooth random function of time, 0 at time 0: a drift and a tremor whose strength falls with its frequency."""
    cycles = rng.uniform(0.15, 2.5, 6)
    amplitude = rng.normal(size=6) / cycles**1.3
    phase = rng.uniform(0, 2 * np.pi, 6)
    at_rest = np.sum(amplitude * np.sin(phase))
    return lambda t: np.sin(2 * np.pi * np.multiply.outer(t, cycles) + phase) @ amplitude - at_rest


class Scene:
    """What a camera sees over one exposure; time runs from -0.5 to 0.5, the target's instant is 0."""

    def __init__(self, seed: int, streak: float, names: tuple[str, ...], size: tuple[int, int] = SIZE):
        """streak: mean length of the path that the far plane's points take over the exposure, px."""
        rng = self.rng = np.random.default_rng([seed, 77])
        self.size, self.focal = size, 0.9 * size[1]
        self.readout = float(
            rng.uniform(0, 0.4)
        )  # of the exposure, between the first row's start and the last one's
        self.waves = [wave(rng) for _ in range(6)]  # pitch, yaw, roll, x, y, z
        self.scale = np.array(
            [1, 1, 0.6, 0.15, 0.15, 0.05]
        )  # radians; translation in depths of the far plane
        self.gain = 1e-3
        for _ in range(3):  # the path's length is nearly proportional to the gain
            self.gain *= streak / max(self.path_length(), 1e-6)
        self.planes = self.build(pictures(names), streak)

    def build(self, images: list[np.ndarray], streak: float) -> list[Plane]:
        rng, (h, w) = self.rng, self.size
        margin = int(40 + 1.5 * streak)
        image = images[rng.integers(len(images))]
        far = crop(rng, image, (h + 2 * margin, w + 2 * margin), (1.0, 1.6))
        planes = [Plane(far, None, np.array([-margin, -margin], float), 1.0, np.zeros(2))]
        for depth in sorted(rng.uniform(0.45, 0.95, rng.integers(1, 4)), reverse=True):
            n = int(rng.uniform(0.25, 0.55) * h)
            light = crop(rng, images[rng.integers(len(images))], (n, n), (1.0, 2.0))
            y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
            outline = 0.75 + 0.15 * np.sin(rng.integers(2, 6) * np.arctan2(y, x) + rng.uniform(0, 6))
            alpha = np.clip((outline - np.hypot(x, y)) * n / 2 + 0.5, 0, 1).astype(np.float32)
            if rng.random() < 0.4:  # lamps
                for _ in range(3):
                    cx, cy = (rng.uniform(0.3, 0.7, 2) * n).astype(int)
                    cv2.circle(
                        light, (int(cx), int(cy)), int(rng.integers(1, 4)), (8.0,) * 3, -1, cv2.LINE_AA
                    )
            angle = rng.uniform(0, 2 * np.pi)
            speed = streak * rng.uniform(0, 1.0) * (rng.random() < 0.6)
            corner = rng.uniform([0, 0], [w - n, h - n])
            planes.append(
                Plane(light, alpha, corner, depth, speed * np.array([np.cos(angle), np.sin(angle)]))
            )
        return planes

    def rays(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Camera-to-world rotations (n, 3, 3) and centres (n, 3) at times (n,)."""
        p, y, r, *centre = (self.gain * s * f(t) for s, f in zip(self.scale, self.waves, strict=True))
        one, zero = np.ones_like(p), np.zeros_like(p)
        rows = lambda m: np.stack([np.stack(row, -1) for row in m], -2)  # noqa: E731
        pitch = rows([[one, zero, zero], [zero, np.cos(p), -np.sin(p)], [zero, np.sin(p), np.cos(p)]])
        yaw = rows([[np.cos(y), zero, np.sin(y)], [zero, one, zero], [-np.sin(y), zero, np.cos(y)]])
        roll = rows([[np.cos(r), -np.sin(r), zero], [np.sin(r), np.cos(r), zero], [zero, zero, one]])
        return roll @ pitch @ yaw, np.stack(centre, -1)

    def project(
        self, x: np.ndarray, y: np.ndarray, t: np.ndarray, depth: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the rays through pixels (x, y), taken at times t, meet a depth: px in the reference view. All broadcast."""
        h, w = self.size
        rotation, centre = self.rays(t)
        dx, dy = (x - (w - 1) / 2) / self.focal, (y - (h - 1) / 2) / self.focal
        d = [rotation[..., i, 0] * dx + rotation[..., i, 1] * dy + rotation[..., i, 2] for i in range(3)]
        k = (depth - centre[..., 2]) / d[2]
        u = self.focal * (centre[..., 0] + d[0] * k) / depth + (w - 1) / 2
        v = self.focal * (centre[..., 1] + d[1] * k) / depth + (h - 1) / 2
        return u, v

    def path_length(self) -> float:
        """Mean over a grid of the length of the far plane's image path over the exposure, px."""
        h, w = self.size
        t = np.linspace(-0.5, 0.5, 129)
        y, x = np.meshgrid(np.linspace(0, h - 1, 5), np.linspace(0, w - 1, 7), indexing="ij")
        u, v = self.project(x[..., None], y[..., None], t, 1.0)
        return float(np.mean(np.sum(np.hypot(np.diff(u), np.diff(v)), axis=-1)))

    def at(self, time: float) -> np.ndarray:
        """Light at a time of the exposure, each row at its own instant; linear RGB (H, W, 3)."""
        h, w = self.size
        rows = time + self.readout * ((np.arange(h) + 0.5) / h - 0.5)
        y, x = np.meshgrid(np.arange(h, dtype=float), np.arange(w, dtype=float), indexing="ij")
        light = np.zeros((h, w, 3), np.float32)
        for plane in self.planes:
            u, v = self.project(x, y, rows[:, None], plane.depth)
            u = u - plane.corner[0] - plane.velocity[0] * rows[:, None]
            v = v - plane.corner[1] - plane.velocity[1] * rows[:, None]
            at = (u.astype(np.float32), v.astype(np.float32))
            seen = cv2.remap(plane.light, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
            if plane.alpha is None:
                light = seen
            else:
                alpha = cv2.remap(plane.alpha, *at, cv2.INTER_LINEAR, borderValue=0)[..., None]
                light = light * (1 - alpha) + seen * alpha
        return np.maximum(light, 0)

    def pair(self, gain: float = 1.0) -> Pair:
        """The exposure with sensor noise, and the clean instant 0. gain: of the noise's variance."""
        steps = (np.arange(SUBSTEPS) + 0.5) / SUBSTEPS - 0.5
        light = np.clip(np.mean([self.at(t) for t in steps], axis=0), 0, 1)
        noise = np.random.default_rng([int(self.rng.integers(1 << 30)), 5]).standard_normal(light.shape)
        blur = truth.to_srgb8(light + noise * np.sqrt(gain * (SHOT_NOISE * light + READ_NOISE)))
        return blur, truth.to_srgb8(self.at(0.0))


def crop(
    rng: np.random.Generator, image: np.ndarray, size: tuple[int, int], zoom: tuple[float, float]
) -> np.ndarray:
    """A random part of a picture at a random scale, linear light."""
    k = max(size[0] / image.shape[0], size[1] / image.shape[1]) * rng.uniform(*zoom)
    how = cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC
    big = cv2.resize(image, None, fx=k, fy=k, interpolation=how).clip(0, 1)
    y, x = (int(rng.integers(max(b - s, 0) + 1)) for b, s in zip(big.shape[:2], size, strict=True))
    part = big[y : y + size[0], x : x + size[1]]
    if part.shape[:2] != size:
        part = cv2.resize(part, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return np.ascontiguousarray(part, np.float32)


def pairs(names: tuple[str, ...], streak: float, seeds: range, gain: float = 1.0) -> list[Pair]:
    return [Scene(seed, streak, names).pair(gain) for seed in seeds]


def kept_pairs(
    file: Path, names: tuple[str, ...], streak: float, seeds: range, gain: float = 1.0
) -> list[Pair]:
    """`pairs`, which take seconds each, rendered once and then read from an .npz file."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = pairs(names, streak, seeds, gain)
        part = file.with_name(f"{file.stem}-{os.getpid()}.part.npz")  # a kill leaves no half file to be read
        np.savez_compressed(part, blur=np.stack([b for b, _ in made]), sharp=np.stack([s for _, s in made]))
        part.rename(file)
    with np.load(file, allow_pickle=False) as held:
        return list(zip(held["blur"], held["sharp"], strict=True))


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=Path("scratch/scenes.png"))
def main(out: Path) -> None:
    rows = []
    for names, seed in ((VALIDATION, 1), (VALIDATION, 2), (TEST, 3), (TEST, 4)):
        row = [Scene(seed, s, names).pair() for s in (5.0, 12.0, 24.0)]
        rows.append(np.hstack([row[0][1], *(b for b, _ in row)]))
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), np.vstack(rows)[..., ::-1])
    click.echo(f"{out}: sharp, then streaks of 5, 12 and 24 px")


if __name__ == "__main__":
    main()
