"""RealBlur's protocol: a shifted, turned, tilted and dimmed picture is measured as what it shows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from deblur_train import build_generator
from deblur_train.cli.main import main
from deblur_train.evaluation.align import align, aligned_psnr, aligned_ssim
from deblur_train.evaluation.metrics import psnr, ssim
from deblur_train.media.pictures import ImageError
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator
from tests.helpers.pair_trees import put

H, W = 240, 320


def scene() -> np.ndarray:
    """(H + 40, W + 40, 3) float in 0..1, smooth enough that a warp of it loses nothing."""
    noise = np.random.default_rng(0).random((H + 40, W + 40, 3))
    smooth = sum(cv2.GaussianBlur(noise, (0, 0), s) * s for s in (2, 4, 8))
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def moved() -> np.ndarray:
    """A place in the sharp picture to the same place in the other: 3.3 px, 0.4 degrees, 1% perspective."""
    c, s = np.cos(np.deg2rad(0.4)), np.sin(np.deg2rad(0.4))
    turn = np.array([[c, -s, 3.3], [s, c, -1.7], [0, 0, 1]])
    return turn @ np.array([[1, 0, 0], [0, 1, 0], [0.01 / W, 0, 1]])


def pair(depth=np.uint8, light=0.8):
    """(picture, sharp, homography): one scene, seen through the homography at ``light`` of its brightness."""
    big, peak, m = scene(), np.iinfo(depth).max, moved()
    margin = np.array([[1, 0, 20], [0, 1, 20], [0, 0, 1.0]])
    to_big = margin @ np.linalg.inv(m)  # a place in the picture to the scene
    picture = cv2.warpPerspective(big, to_big, (W, H), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    sharp = big[20 : 20 + H, 20 : 20 + W]
    views = [np.round(np.clip(x, 0, 1) * peak).astype(depth) for x in (picture * light, sharp)]
    return (*views, m)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_the_homography_is_found_to_a_twentieth_of_a_pixel(depth):
    picture, sharp, m = pair(depth)
    got = align(picture, sharp)
    corners = np.array([[[10, 10], [W - 10, 10], [10, H - 10], [W - 10, H - 10], [W / 2, H / 2]]], np.float64)
    want, found = (cv2.perspectiveTransform(corners, h.astype(np.float64)) for h in (m, got.homography))
    assert np.abs(want - found).max() < 0.05
    assert psnr(picture, sharp) < 20 and aligned_psnr(got) > 40
    assert aligned_ssim(got) > 0.99 > ssim(picture, sharp)


def test_only_what_both_see_counts():
    picture, sharp, _ = pair()
    got = align(picture, sharp)
    hidden = got.seen == 0
    assert 0.001 < hidden.mean() < 0.1 and not got.picture[hidden].any() and not got.sharp[hidden].any()
    error = ((got.sharp - got.picture) ** 2)[~hidden].mean()
    assert aligned_psnr(got) == pytest.approx(-10 * np.log10(error), abs=1e-9)


def test_on_a_registered_pair_it_is_the_plain_measure():
    _, sharp, _ = pair()
    noisy = (
        np.clip(sharp + np.random.default_rng(1).normal(0, 4, sharp.shape), 0, 255).round().astype(np.uint8)
    )
    got = align(noisy, sharp)
    assert np.abs(got.homography - np.eye(3)).max() < 0.05
    assert aligned_psnr(got) == pytest.approx(psnr(noisy, sharp), abs=0.3)


def test_what_cannot_be_aligned_is_said():
    with pytest.raises(ImageError, match="cannot be aligned"):
        align(np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 9, np.uint8))


def test_eval_aligns_both_the_input_and_the_result(tmp_path):
    picture, sharp, _ = pair(light=1.0)
    put(tmp_path / "s" / "blur" / "1.png", picture)
    put(tmp_path / "s" / "sharp" / "1.png", sharp)
    put(tmp_path / "t" / "blur" / "1.png", np.zeros_like(sharp))
    put(tmp_path / "t" / "sharp" / "1.png", sharp)
    generator = build_generator("mobilenet-dsc")
    start_near_identity(generator)
    save_generator(tmp_path / "g.safetensors", "mobilenet-dsc", generator.state_dict())
    args = ["eval", "--checkpoint", str(tmp_path / "g.safetensors"), "--pairs", str(tmp_path)]
    plain = CliRunner().invoke(main, args)
    got = CliRunner().invoke(main, [*args, "--align", "ecc"])
    value = lambda r: float(next(l for l in r.output.splitlines() if l.startswith("PSNR")).split()[2])  # noqa: E731, E741
    assert plain.exit_code == 0 and value(plain) < 25
    assert got.exit_code == 1 and value(got) > 38 and "edge" not in got.output, got.output
    assert "cannot be aligned" in got.stderr and "1 pair left out" in got.stderr
