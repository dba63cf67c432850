"""benchmarks/finish.py: its distance of features, its table and its picture, on answers that are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.helpers.benchmark import benchmark


@pytest.fixture(scope="module")
def finish():
    pytest.importorskip("skimage")
    pytest.importorskip("torch")
    with benchmark("finish") as script:
        yield script


@pytest.fixture(scope="module")
def sharp():
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.0)


def test_the_distance_is_that_of_the_features_directions(finish, sharp):
    """Features of one layer that are the picture itself: per pixel |a/|a| - b/|b||^2, so no change of strength counts."""
    import torch

    distance = finish.feature_distance(lambda x: [x + 1])  # codes in 0..2
    assert distance(sharp, sharp) == 0
    red, green = (np.zeros((4, 4, 3), np.uint8) for _ in range(2))
    red[..., 0], green[..., 1] = 200, 100
    assert distance(red, green) == pytest.approx(2.0)
    assert distance(red, red // 2) == pytest.approx(0.0, abs=1e-9)
    two = finish.feature_distance(lambda x: [x + 1, torch.flip(x + 1, (1,))])
    assert two(red, green) == pytest.approx(4.0)  # layers add up


def test_more_blur_is_farther_by_the_features_of_a_network(finish, sharp):
    from deblur_train.models.pretrained import VGGFeatures

    net = VGGFeatures()
    distance = finish.feature_distance(lambda x: [net(x)])
    far = [distance(sharp, cv2.GaussianBlur(sharp, (0, 0), s)) for s in (0.5, 1.0, 3.0)]
    assert 0 < far[0] < far[1] < far[2]


def test_the_table_holds_means_over_a_set_s_pairs(finish, sharp):
    pairs = [(sharp, sharp), (np.zeros_like(sharp), sharp)]
    found = finish.table_of({"as it is": lambda x: x}, {"a": pairs}, {"level": lambda a, b: float(a.mean())})
    inner = sharp[8:-8, 8:-8]
    assert found["a"]["as it is"]["level"] == pytest.approx(inner.mean() / 2)


def test_the_picture_shows_every_answer_and_the_sharp_one_where_there_is_detail(finish):
    sharp = np.zeros((300, 400, 3), np.uint8)
    sharp[150:250, 220:340] = np.random.default_rng(1).integers(0, 256, (100, 120, 3), np.uint8)
    answers = {"blurred": lambda x: x, "black": np.zeros_like}
    sheet = finish.picture(answers, {"a": [(sharp, sharp)]}, side=120)
    assert sheet.shape == (24 + 120, 360, 3)
    assert np.array_equal(sheet[24:, :120], sheet[24:, 240:]) and not sheet[24:, 120:240].any()
    assert (sheet[24:, :120] > 0).mean() > 0.7


def test_training_without_finished_sets_says_how_to_make_them(finish, tmp_path):
    import click

    (tmp_path / "data" / "mild").mkdir(parents=True)  # begun, not finished
    with pytest.raises(click.UsageError, match=r"ship\.py --data"):
        finish.train(tmp_path / "m.safetensors", tmp_path, "hed", None, ())
