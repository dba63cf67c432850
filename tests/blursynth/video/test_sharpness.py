"""Edges have the width they are given, and a blurred frame is soft beside its clip's best ones."""

import cv2
import numpy as np
import pytest

from blursynth.recipe import Recipe
from blursynth.run.make import make
from blursynth.video.clip import probe_clip, read_frames
from blursynth.video.sharpness import clip_sharpness, edge_sharpness, softness
from tests.helpers.films import write_video


def blocks(seed: int = 0, h: int = 192, w: int = 256) -> np.ndarray:
    """Bright and dark rectangles: perfect edges in both directions, grey (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    grey = np.full((h, w), 90, np.uint8)
    for _ in range(60):
        x, y = rng.integers(0, w - 30), rng.integers(0, h - 30)
        grey[y : y + rng.integers(20, 40), x : x + rng.integers(20, 40)] = rng.choice([40, 160, 220])
    return np.repeat(grey[..., None], 3, 2)


def smeared(rgb: np.ndarray, across: int = 1, down: int = 1) -> np.ndarray:
    return cv2.blur(rgb, (across, down))


def test_sharpness_falls_with_the_width_of_the_edges():
    seen = [edge_sharpness(smeared(blocks(), across=width)) for width in (1, 2, 4, 8)]
    across, down = np.array(seen).T
    assert across[0] > 0.95 and abs(across[1] - 1 / 2) < 0.1
    assert np.all(np.diff(across) < -0.05)
    assert down.min() > 0.9, "the other direction keeps its edges"


def test_a_frame_without_edges_says_nothing():
    assert np.isnan(edge_sharpness(np.full((100, 100, 3), 100, np.uint8))).all()
    noise = np.clip(100 + np.random.default_rng(0).normal(0, 6, (100, 100, 3)), 0, 255).astype(np.uint8)
    assert np.isnan(edge_sharpness(noise)).all()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 frames of a pan; 20 to 27 are smeared by 5 px along it, as by a camera that jerked."""
    folder = tmp_path_factory.mktemp("soft") / "src" / "clip"
    folder.mkdir(parents=True)
    wide = blocks(3, 192, 256 + 80)
    for i in range(40):
        frame = np.ascontiguousarray(wide[:, 2 * i : 2 * i + 256])
        if 20 <= i < 28:
            frame = smeared(frame, across=5)
        cv2.imwrite(str(folder / f"{i:06d}.png"), frame)
    return folder


def test_soft_targets_are_left_out_and_counted(film, tmp_path):
    recipe = Recipe(interp="none", window="3", fps=120, gate="soft<0.3", shard_samples=4)
    summary = make(film.parent, tmp_path / "a", recipe, workers=1, quiet=True)
    # windows 0-2, 3-5, ... have targets 1, 4, ... 37: of those 22 and 25 are smeared
    assert summary.samples == 11 and summary.rejects == {"gate:soft": 2}, summary


def test_softness_depends_on_the_clip_and_the_frame_alone(film):
    info = probe_clip(film, fps=120)
    frames = [f.rgb for f in read_frames(info, 0, 39)]
    soft = [softness(info, f) for f in frames]
    assert max(soft[:20] + soft[28:]) < 0.1 and min(soft[20:28]) > 0.5
    backwards = [softness(info, f) for f in frames[::-1]][::-1]
    assert backwards == soft


def test_a_video_is_measured_at_its_keyframes(tmp_path):
    frames = [smeared(blocks(1), across=1 if i % 8 == 0 else 3) for i in range(64)]
    gops = {"crf": "10", "x264-params": "keyint=8:min-keyint=8:scenecut=0:threads=1"}
    path = write_video(tmp_path / "film.mp4", frames, options=gops)
    info = probe_clip(path)
    across, _ = clip_sharpness(info)
    assert across == pytest.approx(1, abs=0.15), "the keyframes are the sharp ones of this film"
    assert softness(info, frames[3]) > 0.4 and softness(info, frames[8]) < 0.1
