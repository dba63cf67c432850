"""NAFNet leaves torch as the FPNs do: an official-shaped file goes predict -> export -> onnxruntime, and to 8 bits."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deblur_train import load_generator
from deblur_train.cli.main import main
from deblur_train.inference.restorer import Restorer
from deblur_train.inference.runtimes import open_exported
from deblur_train.media.pictures import Picture, read_picture, write_picture
from deblur_train.models.base import start_near_identity
from deblur_train.models.nafnet import NAFNet, NAFNetShape
from tests.deblur_train.models.test_nafnet import fill_nafnet
from tests.helpers.train_shards import make_data, scene

SHAPE = NAFNetShape(8, (1, 1), 1, (1, 1), 2)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A file as the official code writes it, whose answer differs moderately from its input."""
    net = fill_nafnet(NAFNet(SHAPE))
    start_near_identity(net, 0.3)
    path = tmp_path_factory.mktemp("nafnet") / "NAFNet-GoPro-width8.pth"
    torch.save({"params": net.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def onnx_file(official):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    out = official.with_suffix(".onnx")
    result = invoke("export", "--checkpoint", official, "--format", "onnx", "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.slow
def test_an_official_file_goes_predict_export_onnxruntime(official, onnx_file, tmp_path):
    """Through predict and through ONNX the same codes, at a size that needs padding."""
    write_picture(tmp_path / "a.png", picture := _picture(45, 70))
    for checkpoint in (official, onnx_file):
        out = tmp_path / checkpoint.suffix
        given = ["--checkpoint", checkpoint, "--device", "cpu", "--out", out]
        result = invoke("predict", tmp_path / "a.png", *given)
        assert result.exit_code == 0, result.output
    a, b = (read_picture(tmp_path / s / "a.png").rgb.astype(int) for s in (".pth", ".onnx"))
    assert np.abs(a - b).max() <= 1 and np.mean(a != b) < 5e-3
    assert np.mean(a != picture.rgb) > 0.3, "an identity would prove nothing"
    info = open_exported(onnx_file).info
    assert info["backbone"] == "nafnet" and json.loads(info["shape"])["width"] == 8


@pytest.mark.slow
def test_onnx_equals_torch_at_any_size_and_batch(official, onnx_file):
    net, exported = load_generator(official), open_exported(onnx_file)
    for n, h, w in ((1, 1, 1), (2, 33, 20), (1, 64, 96), (3, 7, 130)):
        x = (torch.rand(n, 3, h, w) * 2 - 1).numpy()
        with torch.no_grad():
            assert np.abs(exported(x) - net(torch.from_numpy(x)).numpy()).max() < 1e-4


@pytest.mark.slow
def test_int8_keeps_the_picture(official, onnx_file, tmp_path):
    data = make_data(tmp_path / "data", shards=1, samples=6, val=2, h=96, w=128)
    out = tmp_path / "int8.onnx"
    given = ["--precision", "int8", "--calib", data, "--calib-frames", 6, "--out", out]
    result = invoke("export", "--checkpoint", official, "--format", "onnx", *given)
    assert result.exit_code == 0, result.output
    change = json.loads(out.with_name("int8.onnx.json").read_text())["psnr_change"]
    assert abs(change["loss_db"]) < 0.3 and 30 < change["against_fp32_db"] < 99


@pytest.mark.slow
def test_bench_counts_the_shape_of_the_file(official, onnx_file):
    result = invoke("bench", official, onnx_file, "--sizes", "64x64", "--rounds", 1)
    assert result.exit_code == 0, result.output
    assert result.output.count("kMAC a pixel") == 1 and '"width": 8' in result.output


def test_tiles_of_nafnet_warn_and_local_statistics_agree_better(tmp_path):
    """Its attention sees the whole image, or tiles of it; windows smaller than a tile make the two alike."""
    left, right = scene(4, 300, 300)[0], np.full((300, 300, 3), 30, np.uint8)
    rgb = np.hstack([left, right])
    small = fill_nafnet(NAFNet(SHAPE))
    start_near_identity(small, 0.1)
    official = tmp_path / "g.pth"
    torch.save({"params": small.state_dict()}, official)
    seams = {}
    for stats in ("tracked", "local"):
        restorer = Restorer(load_generator(official, stats, 64), tile=256)
        restorer(rgb)
        seams[stats] = restorer.seams.mean
        assert stats == "local" or "use --norm-stats local" in restorer.warning(), restorer.warning()
    assert seams["local"] < seams["tracked"]


def _picture(h: int, w: int):
    return Picture(scene(5, h, w)[0], None, False)
