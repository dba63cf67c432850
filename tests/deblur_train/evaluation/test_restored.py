"""eval on what others restored, on exported files, and in tiles: the same figures by every way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from deblur_train import build_generator, evaluate
from deblur_train.cli.main import main
from deblur_train.data.index import DataError
from deblur_train.evaluation.metrics import psnr, ssim
from deblur_train.evaluation.pair_sources import pairs_from_tree
from deblur_train.evaluation.restored import answers_from_folder
from deblur_train.inference.restorer import load_restorer
from deblur_train.media.pictures import ImageError
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator
from tests.helpers.pair_trees import put, realblur, rgb


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "g.safetensors"
    generator = build_generator("mobilenet-dsc")
    start_near_identity(generator)
    save_generator(path, "mobilenet-dsc", generator.state_dict())
    return str(path)


def other(sharp: np.ndarray) -> np.ndarray:
    return np.clip(sharp.astype(int) + 3, 0, 255).astype(np.uint8)


def test_two_files_of_one_name_are_no_answer(tmp_path):
    """A preview beside the result: which of them is measured must not follow from the alphabet."""
    put(tmp_path / "a.png"), put(tmp_path / "b.png"), put(tmp_path / "b.jpg")
    blur = rgb("x")
    answer = answers_from_folder(tmp_path, ["a", "b"])
    assert answer("a", blur).shape == blur.shape
    with pytest.raises(ImageError, match=r"holds several of that name: b\.jpg, b\.png"):
        answer("b", blur)


@pytest.mark.parametrize("folder", [".trash", "x/.thumbnails", "@eaDir", "x/__MACOSX"])
def test_what_lies_in_a_hidden_folder_is_no_answer(tmp_path, folder):
    """Neither in place of a picture that is missing, nor as a second of its name."""
    hidden = tmp_path / ".out" / folder  # the folder itself may be hidden
    put(hidden / "a.png"), put(hidden / "b.png"), put(tmp_path / ".out" / "results" / "a.png")
    blur = rgb("x")
    answer = answers_from_folder(tmp_path / ".out", ["a", "b"])
    assert answer("a", blur).shape == blur.shape
    with pytest.raises(ImageError, match="no picture of that name"):
        answer("b", blur)


@pytest.mark.parametrize("nested", [True, False])
def test_another_methods_pictures_are_measured_by_the_names_of_the_pairs(tmp_path, nested):
    root = realblur(tmp_path / "set", 2, 2)
    for n, gt in enumerate(
        sorted(root.glob("*/gt/*.png"))
    ):  # names repeat over scenes: nested, or made unlike
        name = f"blur_{gt.stem.removeprefix('gt_')}.png"
        put(
            tmp_path / "out" / (f"{gt.parts[-3]}/{name}" if nested else f"{n // 2}{name}"),
            other(rgb(str(gt))),
        )
    source = pairs_from_tree(str(root), "val", None)
    if not nested:
        with pytest.raises(
            DataError, match=r"no picture has the name of a pair, such as scene001/blur_1\.png"
        ):
            answers_from_folder(tmp_path / "out", source.names)
        return
    done = CliRunner().invoke(
        main,
        [
            "eval",
            "--restored",
            str(tmp_path / "out"),
            "--pairs",
            str(root),
            "--json",
            str(tmp_path / "r.json"),
        ],
    )
    assert done.exit_code == 0 and f"4 images of {tmp_path / 'out'}" in done.output, done.output
    for row in json.loads((tmp_path / "r.json").read_text())["per_image"]:
        blur, sharp = source.read(source.names.index(row["name"]))
        assert row["psnr"] == pytest.approx(psnr(other(sharp), sharp), abs=1e-5)
        assert row["ssim"] == pytest.approx(ssim(other(sharp), sharp), abs=1e-5)
        assert row["psnr_blurred"] == pytest.approx(psnr(blur, sharp), abs=1e-5)


def test_the_last_part_of_a_name_is_enough_where_it_is_one_file_and_one_pairs(tmp_path):
    put(tmp_path / "a" / "1.png")
    put(tmp_path / "b" / "2.png")
    put(tmp_path / "c" / "2.png")
    answer = answers_from_folder(tmp_path, ["s/1", "s/2"])
    answer("s/1", rgb("x"))
    with pytest.raises(Exception, match="no picture of that name"):
        answer("s/2", rgb("x"))
    with pytest.raises(DataError):
        answers_from_folder(tmp_path, ["s/1", "t/1"])


def test_a_missing_or_misshapen_answer_is_named_and_ends_with_1(tmp_path):
    root = realblur(tmp_path / "set", 1, 3)
    put(tmp_path / "out" / "blur_1.png", rgb("1"))
    put(tmp_path / "out" / "blur_2.png", rgb("2", size=(40, 24)))
    done = CliRunner().invoke(main, ["eval", "--restored", str(tmp_path / "out"), "--pairs", str(root)])
    assert done.exit_code == 1 and "1 image" in done.output and "2 pairs left out" in done.stderr
    assert "40x24" in done.stderr and "32x24" in done.stderr and "no picture of that name" in done.output


def test_tiles_as_in_predict(tmp_path, checkpoint):
    put(tmp_path / "blur" / "1.png", size=(320, 256))
    put(tmp_path / "sharp" / "1.png", size=(320, 256))
    source = pairs_from_tree(str(tmp_path), "val", None)
    blur, sharp = source.read(0)
    for tile in (None, 128):
        got = evaluate(source, checkpoint, tile=tile)["per_image"][0]["psnr"]
        assert got == pytest.approx(psnr(load_restorer(checkpoint, tile=tile)(blur), sharp), abs=1e-5)


@pytest.mark.slow
def test_an_exported_file_is_measured_like_its_checkpoint(tmp_path, checkpoint):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    out = tmp_path / "g.onnx"
    done = CliRunner().invoke(
        main, ["export", "--checkpoint", checkpoint, "--format", "onnx", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    source = pairs_from_tree(str(realblur(tmp_path / "set", 1, 2)), "val", None)
    a, b = (evaluate(source, str(c))["mean"] for c in (checkpoint, out))
    assert a["psnr"] == pytest.approx(b["psnr"], abs=0.02) and a["psnr_blurred"] == b["psnr_blurred"]
