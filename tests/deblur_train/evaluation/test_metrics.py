import cv2
import numpy as np
import pytest

from deblur_train.evaluation.metrics import edge_retention, luma, psnr, psnr_y, ssim
from deblur_train.evaluation.plot import contact_sheet, curves
from tests.helpers.train_shards import scene


def test_psnr_known_values():
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(np.zeros_like(a), np.full_like(a, 255)) == 0
    assert psnr(np.full_like(a, 250), np.full_like(a, 10)) == psnr(
        np.full_like(a, 10), np.full_like(a, 250)
    ), "no wrap-around"


def test_luma_is_bt601_in_16_to_235():
    """MATLAB's rgb2ycbcr of black, white, red, green, blue; 16 bits alike; one step of all channels is 219/255 of Y."""
    primaries = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    want = [[16, 235, 81.481, 144.553, 40.966]]
    np.testing.assert_allclose(luma(primaries), want, atol=1e-9)
    np.testing.assert_allclose(luma(primaries.astype(np.uint16) * 257), want, atol=1e-9)
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr_y(a, a) == float("inf")
    assert psnr_y(a, a + 1) == pytest.approx(20 * np.log10(255 / (219 / 255)), abs=1e-9)


def test_psnr_of_luma_equals_skimage():
    color = pytest.importorskip("skimage.color")
    blur, sharp = scene(3)
    y = [color.rgb2ycbcr(x)[..., 0] for x in (blur, sharp)]
    want = 10 * np.log10(255**2 / np.mean((y[0] - y[1]) ** 2))
    assert psnr_y(blur, sharp) == pytest.approx(want, abs=1e-6)
    assert psnr_y(blur, sharp) != pytest.approx(psnr(blur, sharp), abs=0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_ssim_equals_skimage(seed):
    metrics = pytest.importorskip("skimage.metrics")
    blur, sharp = scene(seed, 60, 75)
    want = metrics.structural_similarity(
        blur,
        sharp,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(blur, sharp) == pytest.approx(want, abs=1e-6)
    assert ssim(sharp, sharp) == pytest.approx(1)
    assert -1 <= ssim(sharp[:3, :5], 255 - sharp[:3, :5]) < 0.5


def test_sixteen_bits_are_measured_in_their_own_range():
    """A picture in 16-bit steps (v * 257) has the figures it has in 8."""
    blur, sharp = scene(2, 60, 75)
    wide = [x.astype(np.uint16) * 257 for x in (blur, sharp)]
    assert psnr(*wide) == pytest.approx(psnr(blur, sharp), abs=1e-9)
    assert ssim(*wide) == pytest.approx(ssim(blur, sharp), abs=1e-9)
    assert edge_retention(*wide) == edge_retention(blur, sharp)


def test_edge_retention_known_values():
    flat = np.full((64, 64, 3), 90, np.uint8)
    square = flat.copy()
    square[20:44, 20:44] = 220
    moved = flat.copy()
    moved[20:44, 32:56] = 220
    assert edge_retention(square, square) == 1
    assert edge_retention(flat, flat) == 1
    assert edge_retention(flat, square) == 0
    assert 0 < edge_retention(moved, square) < 0.7
    assert edge_retention(cv2.GaussianBlur(square, (0, 0), 6), square) == 0


def test_curves_draw_what_there_is():
    log = [{"step": s, "loss_g": 1 / s, "lr": 1e-4} for s in range(1, 40)] + [
        {"step": 39, "val_psnr": 30.0, "val_psnr_blurred": 28.0}
    ]
    picture = curves(log)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    blue = np.all(picture == (31, 119, 180), axis=2)
    assert blue[:300, :560].sum() > 200, "the generator's loss"
    assert curves([]).shape == picture.shape
    assert curves([{"step": 1, "loss_g": float("nan")}]).shape == picture.shape


def test_contact_sheet_is_laid_out_in_rows():
    a = np.full((50, 100, 3), 200, np.uint8)
    picture = contact_sheet([("one", [a, a]), ("two", [a, a])], ["left", "right"], width=60)
    assert picture.shape == (26 + 2 * (24 + 30), 120, 3)
