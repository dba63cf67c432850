"""eval's pairs: the field's trees in one command, nothing measured against itself, nothing left out in silence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from blursynth.common.errors import UsageError
from blursynth.shards.layouts import LayoutError
from deblur_train import build_generator, evaluate
from deblur_train.cli.main import main
from deblur_train.evaluation.metrics import psnr, psnr_y, ssim
from deblur_train.evaluation.pair_sources import pairs_from_folders, pairs_from_tree
from deblur_train.media.pictures import ImageError, read_picture
from deblur_train.models.checkpoint import save_generator
from tests.helpers.pair_trees import gopro, put, realblur, reds, rgb
from tests.helpers.places import SHARED


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "g.safetensors"
    save_generator(path, "mobilenet-dsc", build_generator("mobilenet-dsc").state_dict())
    return str(path)


def run(checkpoint, *args):
    return CliRunner().invoke(main, ["eval", "--checkpoint", checkpoint, *map(str, args)])


def test_the_official_test_split_is_what_is_measured(tmp_path):
    root = gopro(tmp_path / "set")
    source = pairs_from_tree(str(root), "val", None)
    assert len(source.names) == 4 and all(n.startswith("test/GOPR0384_11_00/") for n in source.names)
    assert "4 of 12 pairs" in source.remarks[0]
    assert len(pairs_from_tree(str(root), "train", None).names) == 8
    blur, sharp = source.read(0)
    clip = root / "test" / "GOPR0384_11_00"
    np.testing.assert_array_equal(blur, read_picture(clip / "blur" / "000047.png").rgb)
    np.testing.assert_array_equal(sharp, read_picture(clip / "sharp" / "000047.png").rgb)


@pytest.mark.parametrize("tree", [realblur, reds])
def test_without_official_splits_all_are_measured_whatever_the_split(tmp_path, tree):
    root = tree(tmp_path / "set")
    assert len(pairs_from_tree(str(root), "val", None).names) == 9
    assert len(pairs_from_tree(str(root), "val", 4).names) == 4


def test_a_tree_in_one_command(tmp_path, checkpoint):
    root = realblur(tmp_path / "set", 2, 2)
    done = run(checkpoint, "--pairs", root, "--json", tmp_path / "r.json")
    assert done.exit_code == 0 and "4 images" in done.output
    assert json.loads((tmp_path / "r.json").read_text())["left_out"] == []


def test_a_pair_left_out_is_named_with_both_sizes_and_ends_with_1(tmp_path, checkpoint):
    root = realblur(tmp_path / "set", 2, 2)
    put(root / "scene002" / "gt" / "gt_2.png", size=(40, 24))
    done = run(checkpoint, "--pairs", root, "--json", tmp_path / "r.json")
    assert done.exit_code == 1 and "3 images" in done.output
    assert "32x24" in done.stderr and "40x24" in done.stderr and "1 pair left out" in done.stderr
    [left] = json.loads((tmp_path / "r.json").read_text())["left_out"]
    assert left.startswith("scene002/blur_2: ")


def test_nothing_is_measured_against_itself(tmp_path, checkpoint):
    root = realblur(tmp_path / "set", 2, 2)
    blur = root / "scene001" / "blur"
    with pytest.raises(LayoutError, match="both the blurred and the sharp"):
        pairs_from_folders(str(blur), str(blur), None)
    copy = tmp_path / "copy"
    copy.mkdir()
    (tmp_path / "linked").symlink_to(blur)
    for p in blur.iterdir():
        put(copy / p.with_suffix(".tif").name, read_picture(p).rgb)  # the same pixels in other files
    with pytest.raises(ImageError, match="against itself"):
        pairs_from_folders(str(blur), str(copy), None).read(0)
    for other in (blur, tmp_path / "linked", copy):
        done = run(checkpoint, "--blur", blur, "--sharp", other)
        assert done.exit_code == 1 and "dB" not in done.output.replace("PSNR, dB", "") and done.stderr


def test_sixteen_bits_are_measured_as_such_and_beside_eight(tmp_path, checkpoint):
    deep, flat = tmp_path / "deep", tmp_path / "flat"
    for folder, depth in ((deep, 16), (flat, 8)):
        for side in ("blur", "sharp"):
            put(folder / side / "1.png", rgb(side, depth=depth))
    put(tmp_path / "mixed" / "blur" / "1.png", rgb("blur"))
    put(tmp_path / "mixed" / "sharp" / "1.png", rgb("sharp", depth=16))
    rows = []
    for folder in (deep, flat, tmp_path / "mixed"):
        done = run(checkpoint, "--pairs", folder, "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
        rows.append(json.loads((tmp_path / "r.json").read_text())["mean"])
    for key in ("psnr_blurred", "ssim_blurred", "edge_retention_blurred"):
        assert rows[0][key] == rows[1][key] == rows[2][key], key


def test_figures_of_real_pairs_are_those_of_skimage():
    metrics = pytest.importorskip("skimage.metrics")
    root = SHARED / "media" / "pairs" / "reds_180p"
    if not root.is_dir():
        pytest.skip(f"real pairs are not at {root}")
    source = pairs_from_tree(str(root), "val", None)
    assert len(source.names) == 12
    for i in range(0, 12, 3):
        blur, sharp = source.read(i)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        want = metrics.structural_similarity(sharp, blur, channel_axis=2, **options)
        assert psnr(blur, sharp) == pytest.approx(metrics.peak_signal_noise_ratio(sharp, blur), abs=1e-4)
        assert ssim(blur, sharp) == pytest.approx(want, abs=1e-5)


def test_usage(tmp_path, checkpoint):
    assert run(checkpoint).exit_code == 2
    assert run(checkpoint, "--blur", tmp_path).exit_code == 2
    assert run(checkpoint, "--pairs", tmp_path, "--shards", tmp_path).exit_code == 2
    done = run(checkpoint, "--pairs", tmp_path)
    assert done.exit_code == 1 and "no pairs in a layout that is known" in done.stderr


def test_the_y_channel_stands_beside_the_others(tmp_path, checkpoint):
    root = realblur(tmp_path / "set", 2, 2)
    done = run(checkpoint, "--pairs", root, "--json", tmp_path / "r.json", "--y-channel")
    assert done.exit_code == 0 and "PSNR of Y, dB" in done.output
    row = json.loads((tmp_path / "r.json").read_text())["per_image"][0]
    blur, sharp = pairs_from_tree(str(root), "val", None).read(0)
    assert row["psnr_y_blurred"] == pytest.approx(psnr_y(blur, sharp), abs=1e-6)
    assert row["psnr_y_delta"] == pytest.approx(row["psnr_y"] - row["psnr_y_blurred"], abs=2e-6)
    done = run(checkpoint, "--pairs", root, "--y-channel", "--align", "ecc")
    assert done.exit_code == 2 and "PSNR and SSIM alone" in done.stderr


def test_from_python_by_the_names_of_the_options(tmp_path, checkpoint):
    root = realblur(tmp_path / "set", 2, 2)
    asked = {"checkpoint": checkpoint, "console": Console(quiet=True)}
    whole = evaluate(pairs=root, report=tmp_path / "r.json", y_channel=True, device="auto", **asked)
    assert whole["images"] == 4 and (tmp_path / "r.csv").exists()
    one = evaluate(blur=root / "scene001" / "blur", sharp=root / "scene001" / "gt", limit=1, **asked)
    assert one["images"] == 1 and one["mean"]["psnr"] == whole["per_image"][0]["psnr"]
    for wrong, words in (
        ({}, "what to measure on"),
        ({"pairs": root, "shards": root}, "what to measure on"),
        ({"pairs": root, "split": "test"}, "split: must be"),
        ({"pairs": root, "align": "foo"}, "align: must be"),
        ({"pairs": root, "align": "ecc", "lpips": True}, "leave out lpips"),
        ({"pairs": root, "report": tmp_path / "r.csv"}, "give it another ending"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate(**wrong, **asked)
