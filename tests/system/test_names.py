"""File names that are not UTF-8, which Linux allows: read, written, named in messages; no traceback."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from blursynth.cli.main import main as blursynth
from tests.helpers.films import moving, write_picture, write_video


def odd(folder: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@pytest.fixture
def film(tmp_path):
    """A video whose name is Latin-1; skipped where the file system takes UTF-8 only."""
    plain, path = (
        write_video(tmp_path / "x.mp4", moving(12, (96, 64)), fps=240),
        odd(tmp_path, b"caf\xe9.mp4"),
    )
    try:
        return plain.rename(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")


def run(command, *args):
    result = CliRunner().invoke(command, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


MAKE = ("--interp", "none", "--window", 3, "--workers", 1, "--val-fraction", 0, "--quiet")


def test_a_video_and_an_output_folder_of_such_names(film, tmp_path):
    out = odd(tmp_path, b"o\xfft")
    made = run(blursynth, "make", film, "--out", out, *MAKE)
    assert made.exit_code == 0 and r"o\xfft" in made.output
    assert run(blursynth, "verify", out).exit_code == 0
    assert r"caf\xe9.mp4" in run(blursynth, "audit", film).output
    assert run(blursynth, "make", film, "--out", out, *MAKE).exit_code == 0  # resumed


def test_a_recipe_and_a_curve_of_such_names(film, tmp_path):
    np.save(tmp_path / "c.npy", np.linspace(0, 1, 256) ** 2)
    curve = (tmp_path / "c.npy").rename(odd(tmp_path, b"c\xe9.npy"))
    recipe = odd(tmp_path, b"r\xe9.toml")
    recipe.write_text("gate = 'off'")
    made = run(blursynth, "make", film, "--recipe", recipe, "--crf", curve, "--out", tmp_path / "d", *MAKE)
    assert made.exit_code == 0, made.output
    assert tomllib.loads((tmp_path / "d" / "recipe.toml").read_text(encoding="utf-8"))["name"] == r"r\xe9"
    again = run(
        blursynth,
        "make",
        film,
        "--recipe",
        tmp_path / "d" / "recipe.toml",
        "--out",
        tmp_path / "e",
        "--workers",
        1,
    )
    assert again.exit_code == 0, again.output
    tars = [(tmp_path / n / "train-000000.tar").read_bytes() for n in "de"]
    assert tars[0] == tars[1]


def test_such_a_name_within_a_recipe_is_refused_in_one_line(film, tmp_path):
    (tmp_path / "r.toml").write_bytes(b'src = ["caf\xe9.mp4"]')
    result = run(blursynth, "make", "--recipe", tmp_path / "r.toml", "--out", tmp_path / "d")
    assert result.exit_code == 2 and "not UTF-8" in result.output and "command line" in result.output


def test_predict_and_eval_read_and_write_such_names(film, tmp_path):
    torch = pytest.importorskip("torch")
    from deblur_train.cli.main import main as deblur_train
    from deblur_train.models.checkpoint import shipped_checkpoint

    assert torch
    try:
        shipped_checkpoint()
    except Exception as e:
        pytest.skip(f"no shipped model: {e}")
    picture = write_picture(tmp_path / "p.png", moving(1, (96, 64))[0][..., ::-1]).rename(
        odd(tmp_path, b"p\xe9.png")
    )
    out = odd(tmp_path, b"restored\xff")
    for given in (film, picture):
        result = run(deblur_train, "predict", given, "--out", out, "--device", "cpu")
        assert result.exit_code == 0, result.output
    assert {os.fsencode(p.name) for p in out.iterdir()} >= {b"caf\xe9.mp4", b"p\xe9.png"}
    data = odd(tmp_path, b"d\xff")
    assert run(blursynth, "make", film, "--out", data, *MAKE).exit_code == 0
    measured = run(deblur_train, "eval", "--shards", data, "--split", "train", "--device", "cpu")
    assert measured.exit_code == 0 and "PSNR" in measured.output, measured.output
