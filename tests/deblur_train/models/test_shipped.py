"""The shipped model: it is there, small, restores by default, and does what its card says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from deblur_train import load_generator
from deblur_train.cli.main import main
from deblur_train.evaluation.metrics import psnr
from deblur_train.inference.tiles import restore
from deblur_train.models.checkpoint import read_state, shipped_checkpoint
from tests.helpers.places import SHARED

PAIRS = SHARED / "media" / "pairs"


def read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def test_it_is_small_and_says_what_it_is():
    path = shipped_checkpoint()
    assert path.stat().st_size < 6e6
    _, info = read_state(path)
    assert info["backbone"] == "nafnet"
    card = path.with_name("README.md").read_text()
    for word in ("licence", "Trained on", "Limits"):
        assert word in card


def test_predict_needs_neither_checkpoint_nor_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    cv2.imwrite("photo.png", cv2.GaussianBlur(picture, (0, 0), 2))
    r = CliRunner().invoke(main, ["predict", "photo.png"])
    assert r.exit_code == 0, r.output
    assert "restored" in r.output and read(tmp_path / "restored" / "photo.png").shape == (40, 56, 3)
    assert not np.array_equal(read(tmp_path / "restored" / "photo.png"), read(tmp_path / "photo.png"))


def test_live_asks_where_to():
    r = CliRunner().invoke(main, ["predict", "clip.mp4", "--live"])
    assert r.exit_code == 2 and "--live needs --out" in r.output


@pytest.mark.skipif(not PAIRS.exists(), reason="shared/media/pairs is not here")
def test_it_beats_the_blurred_input_on_pairs_it_never_saw():
    generator = load_generator(shipped_checkpoint())
    reds = sorted(PAIRS.glob("reds_180p/*/blur/*.png"))
    sets = [
        [(p, p.parents[1] / "sharp" / p.name) for p in reds],
        [(PAIRS / "gopro/Flower_blur1.png", PAIRS / "gopro/Flower_sharp1.png")],
    ]
    for pairs in sets:
        gains = [psnr(restore(generator, read(b)), read(s)) - psnr(read(b), read(s)) for b, s in pairs]
        assert gains and np.mean(gains) > 0
