"""The training sets of study.py: the same windows of the same frames, blurred in as many ways as the study has arms.

All arms expose for the same time: their light has the same variance in time, that of GoPro's mean of seven frames.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import truth
from joblib import Parallel, delayed

from blursynth.exchange.pack import pack
from blursynth.run.make import make
from blursynth.video.clip import probe_clip, read_frames

MEAN_OF = 7
"""Frames in GoPro's shortest mean, all weighed alike."""
WINDOW = 9
"""Frames that every arm is given; what collects light lies around their middle."""
VARIANCE = (MEAN_OF**2 - 1) / 12
"""Of the light's instants about their mean, in squared frame intervals: of MEAN_OF equal frames, so of all arms."""
LENGTH = math.sqrt(12 * VARIANCE)
"""Frame intervals in which an even, unbroken exposure of that variance is open: 6.93."""
FLOW = {"interp": "dis", "duty": f"{LENGTH / (WINDOW - 1):.6f}"}
NOISE = {"noise": "restore+iso"}
CAMERA = {"highlights": "auto", "shake": "0-12", "shake_about": "centre"}
OFF = {"crf": "srgb", "noise": "off", "highlights": "off"}
ARMS: dict[str, dict[str, Any]] = {
    "a display mean": {"mean": "display"},
    "b linear mean": {"mean": "linear"},
    "c + interpolation": OFF | FLOW,
    "d + noise": OFF | FLOW | NOISE,
    "e + lights, shake": OFF | FLOW | NOISE | CAMERA,
    "f ours": FLOW | NOISE | CAMERA | {"crf": "gamma1.8-2.6"},
}
"""What makes each arm's blur: a mean of frames, or options of `blursynth make`. Each adds one stage to the one before."""


@dataclass(frozen=True)
class Sources:
    """What all arms are made from."""

    clips: tuple[str, ...] = (
        "bikes.mp4",
        "max-heromode.mp4",
        "solidWhiteRight.mp4",
    )  # BSD; Apache-2.0 or MIT; MIT
    clip_scale: float = 0.5  # finer codec's traces, and motion of a faster camera
    stride: int = 8  # frames from one window of a clip to the next
    scenes: int = 400  # films rendered from the stills
    size: tuple[int, int] = (256, 384)  # of a film's frame, px
    speed: tuple[float, float] = (0.4, 5.0)  # px a frame, drawn log-uniformly
    arms: dict[str, dict[str, Any]] = field(default_factory=lambda: ARMS)


TO_LIGHT = truth.to_linear(np.arange(256))
"""Linear light of an sRGB code, float32."""


def letter(arm: str) -> str:
    return arm.split()[0]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def mean_weights(kind: str) -> np.ndarray:
    """Share of each of the WINDOW frames in a mean of frames: float64 (WINDOW,), sum 1, variance in time VARIANCE.

    display: MEAN_OF equal frames. linear: light taken to change evenly from frame to frame (trapezoid rule), over an
    exposure that ends between two frames.
    """
    at = np.arange(WINDOW) - (WINDOW - 1) / 2
    if kind == "display":
        return (np.abs(at) < MEAN_OF / 2) / MEAN_OF

    def mass(x: np.ndarray) -> np.ndarray:
        """Of a frame's triangular share of the light, up to x intervals from it."""
        x = np.clip(x, -1, 1)
        return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)

    def weights(length: float) -> np.ndarray:
        w = mass(length / 2 - at) - mass(-length / 2 - at)
        return w / w.sum()

    low, high = 1.0, WINDOW - 1.0
    for _ in range(60):  # the variance grows with the length
        middle = (low + high) / 2
        low, high = (middle, high) if variance(weights(middle)) < VARIANCE else (low, middle)
    return weights(low)


def variance(weights: np.ndarray) -> float:
    """Of time under weights of equally spaced frames, in squared frame intervals."""
    at = np.arange(len(weights))
    return float(weights @ at**2 - (weights @ at) ** 2)


def mean_blur(frames: Sequence[np.ndarray], kind: str) -> np.ndarray:
    """Blur of WINDOW frames, RGB uint8 (H, W, 3), as a mean of their codes (display) or of their light (linear)."""
    w = mean_weights(kind)
    if kind == "display":
        return np.round(np.tensordot(w, np.stack(frames).astype(np.float64), 1)).astype(np.uint8)
    return truth.to_srgb8(np.tensordot(w, np.stack([TO_LIGHT[f] for f in frames]), 1))


def training_scene(
    rng: np.random.Generator, stills: list[np.ndarray], size: tuple[int, int], speed: float | None = None
) -> truth.Scene:
    """A scene of the bench's kind whose pictures are crops of the stills (linear light, BGR). speed: px a frame."""
    seed = int(rng.integers(1 << 30))
    scene = truth.Scene(seed, size=size, speed=rng.uniform(0.5, 6.0) if speed is None else speed, lights=True)
    for layer in scene.layers:
        h, w = layer.im.shape[:2]
        lamps = layer.im.max(axis=2, keepdims=True) > 2  # lamps are 6; resized pictures pass 1 a little
        still = stills[rng.integers(len(stills))]
        k = max(h / still.shape[0], w / still.shape[1]) * rng.uniform(1.0, 3.5)
        big = cv2.resize(
            still, None, fx=k, fy=k, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC
        ).clip(0, 1)
        y, x = (int(rng.integers(b - s + 1)) for b, s in zip(big.shape[:2], (h, w), strict=True))
        layer.im = np.where(lamps, layer.im, big[y : y + h, x : x + w]).astype(np.float32)
    return scene


def write_sources(media: Path, src: Path, sources: Sources, workers: int) -> None:
    """Clips, made smaller, and rendered films, all as folders of PNG frames; what is complete is left alone."""
    src.mkdir(parents=True, exist_ok=True)
    for name in sources.clips:
        _write_clip(media / "video" / name, src / Path(name).stem, sources.clip_scale)
    missing = [i for i in range(sources.scenes) if not film_folder(src, i).exists()]
    if missing:
        stills = [truth.to_linear(shrunk(cv2.imread(str(p)))) for p in sorted((media / "stills").glob("*"))]
        Parallel(workers)(delayed(_write_film)(stills, film_folder(src, i), i, sources) for i in missing)


def film_folder(src: Path, i: int) -> Path:
    return src / f"scene{i:03d}"


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def shrunk(image: np.ndarray, longest: int = 1600) -> np.ndarray:
    """Codes, no side longer than ``longest`` px."""
    return scaled(image, min(1.0, longest / max(image.shape[:2])))


def scaled(image: np.ndarray, k: float) -> np.ndarray:
    """Codes at a scale of at most 1, averaged as light."""
    if k == 1:
        return image
    return truth.to_srgb8(cv2.resize(TO_LIGHT[image], None, fx=k, fy=k, interpolation=cv2.INTER_AREA))


def _write_clip(clip: Path, folder: Path, scale: float) -> None:
    if folder.exists():
        return
    part = fresh(folder.with_suffix(".part"))
    info = probe_clip(clip)
    for frame in read_frames(info, 0, info.frames - 1):
        if frame.rgb is None:
            raise click.ClickException(f"{clip}: frame {frame.index} cannot be read")
        cv2.imwrite(str(part / f"{frame.index:06d}.png"), scaled(frame.rgb, scale)[..., ::-1])
    part.rename(folder)


def _write_film(stills: list[np.ndarray], folder: Path, i: int, sources: Sources) -> None:
    cv2.setNumThreads(1)
    if folder.exists():
        return
    part = fresh(folder.with_suffix(".part"))
    rng = np.random.default_rng([19, i])
    speed = float(np.exp(rng.uniform(*np.log(sources.speed))))
    for t, frame in enumerate(training_scene(rng, stills, sources.size, speed).frames(WINDOW)):
        cv2.imwrite(str(part / f"{t:06d}.png"), frame)
    part.rename(folder)


def make_arm(media: Path, work: Path, arm: str, sources: Sources, workers: int) -> Path:
    """The shards of an arm, once; of other settings, in another folder. Means of frames take their windows from a set
    that `make` made."""
    options = sources.arms[arm]
    home = work / f"frames-{digest(frames_of(sources))}"
    src, out = home / "src", home / f"{letter(arm)}-{digest(options)}"
    if (out / "complete").exists():
        return out
    write_sources(media, src, sources, workers)
    if "mean" in options:
        guide = next(a for a in reversed(sources.arms) if "mean" not in sources.arms[a])
        _pack_means(src, make_arm(media, work, guide, sources, workers), out, options["mean"], workers)
    else:
        make(
            src, out, window=str(WINDOW), stride=sources.stride, gate="off", val_fraction=0.0, fps_unknown=240.0,
            workers=workers, quiet=True, **options,
        )  # fmt: skip
    (out / "complete").touch()
    return out


def windows(data: Path) -> list[tuple[str, int]]:
    """Clip's path and first frame of every sample of a set, sorted."""
    found = []
    for shard in sorted(data.rglob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    source = json.load(tar.extractfile(member))["source"]  # type: ignore[arg-type]
                    found.append((source["path"], source["first"]))
    return sorted(found)


def _pack_means(src: Path, guide: Path, out: Path, kind: str, workers: int) -> None:
    pairs = out.with_name(f"{out.name}-pairs")
    Parallel(workers)(delayed(_write_mean)(src, pairs, path, first, kind) for path, first in windows(guide))
    shutil.rmtree(out, ignore_errors=True)
    pack(blur=pairs / "blur", sharp=pairs / "sharp", out=out, val_fraction=0.0)
    shutil.rmtree(pairs)


def _write_mean(src: Path, pairs: Path, path: str, first: int, kind: str) -> None:
    cv2.setNumThreads(1)
    frames = [f.rgb for f in read_frames(probe_clip(src / path), first, first + WINDOW - 1)]
    for name, image in (("blur", mean_blur(frames, kind)), ("sharp", frames[(WINDOW - 1) // 2])):
        file = pairs / name / Path(path).name / f"{first:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image[..., ::-1])


def frames_of(sources: Sources) -> dict[str, Any]:
    """All that the arms' common frames depend on."""
    return {k: v for k, v in asdict(sources).items() if k != "arms"} | {"window": WINDOW}


def described(sources: Sources, arm: str) -> dict[str, Any]:
    """All that an arm's data depends on."""
    return frames_of(sources) | {"variance": VARIANCE, "arm": sources.arms[arm]}
