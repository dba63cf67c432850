"""``deblur-train bench``: what is counted and how turns are taken; never how long anything takes."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from deblur_train import build_generator
from deblur_train.cli.main import main
from deblur_train.evaluation.bench import Row, Skipped, as_json, bench, count, time_in_turn
from deblur_train.inference.runtimes import Runner, torch_runner
from deblur_train.inference.signature import ExportError, Signature


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bench") / "g.safetensors"
    state = build_generator("mobilenet-dsc").state_dict()
    save_file({k: v.contiguous() for k, v in state.items() if not k.startswith("fpn.enc")}, path)
    return path


@pytest.mark.parametrize(
    ("name", "kmacs", "used"),
    [("mobilenet", 41.3, 2_106_627), ("mobilenet-dsc", 10.2, 1_185_507), ("inception", 267, 35_840_099)],
)
def test_counts_without_running(name, kmacs, used):
    """The same figures as a real forward pass gives (test_parity_generator)."""
    macs, parameters = count(name)
    assert macs / 1e3 == pytest.approx(kmacs, rel=5e-3)
    assert parameters == used


def test_everything_takes_its_turn_and_the_first_round_is_not_counted():
    order = []
    times = time_in_turn([lambda: order.append("a"), lambda: order.append("b")], rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(t) for t in times] == [3, 3]


def test_rows_and_files_of_another_size():
    seen = []
    free = Runner("eager", Signature(), lambda x: x)
    fixed = Runner("litert", Signature("NHWC", "uint8", (8, 12)), lambda x: seen.append(x) or x)
    rows = bench([("a", free), ("b", fixed)], [(8, 12), (16, 16)], rounds=2)
    assert [(type(r), r.name, r.height) for r in rows] == [
        (Row, "a", 8),
        (Row, "b", 8),
        (Skipped, "b", 16),
        (Row, "a", 16),
    ]
    assert seen[0].shape == (1, 8, 12, 3) and seen[0].dtype == np.uint8
    assert rows[2].reason == "takes 8 x 12 only"
    first = rows[0]
    assert first.speedup == 1 and first.gmacs is None
    assert first.frames_per_s == pytest.approx(1e3 / first.median_ms)
    assert first.megapixels_per_s == pytest.approx(8 * 12 / 1e6 * first.frames_per_s)
    json.dumps(as_json(rows))


def test_a_runner_hides_layout_and_type():
    """An identity in bytes, channels last, gives back what went in, to half a code value."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 5, 7)).astype(np.float32)
    bytes_ = Runner("litert", Signature("NHWC", "uint8"), lambda a: a)
    np.testing.assert_allclose(bytes_(x), x, atol=1.01 / 255)
    halves = Runner("pt2", Signature("NCHW", "float16"), lambda a: a)
    np.testing.assert_allclose(halves(x), x, atol=5e-4)
    with pytest.raises(ExportError, match="5 x 6 pixels only"):
        Runner("litert", Signature("NHWC", "float32", (5, 6)), lambda a: a)(x)


def test_the_torch_runner_is_the_generator(checkpoint):
    torch.manual_seed(0)
    g = build_generator("mobilenet-dsc").eval()
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 33, 47)).astype(np.float32)
    with torch.no_grad():
        want = g(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(torch_runner(g)(x), want, atol=1e-4)


def test_the_command(tmp_path, checkpoint):
    result = invoke(
        "bench",
        checkpoint,
        checkpoint,
        "--sizes",
        "32x64,40x40",
        "--rounds",
        1,
        "--json",
        tmp_path / "b.json",
    )
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.output.splitlines() if line.startswith(str(checkpoint))]
    assert [line[2] for line in table] == ["32x64", "32x64", "40x40", "40x40"]
    assert all(len(line) == 9 and float(line[3]) > 0 for line in table), "no column is cut short"
    assert "10.2 kMAC" in result.output and "1.19 M parameters" in result.output
    held = json.loads((tmp_path / "b.json").read_text())
    assert [(r["height"], r["width"], r["runtime"]) for r in held["rows"]] == [
        (32, 64, "eager"),
        (32, 64, "eager"),
        (40, 40, "eager"),
        (40, 40, "eager"),
    ]
    assert held["rows"][0]["gmacs"] == pytest.approx(10.2e3 * 32 * 64 / 1e9, rel=5e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "FILE_OR_CHECKPOINT"),
        (["{c}", "--sizes", "720p"], 2, "not HEIGHTxWIDTH"),
        (["{t}/none.onnx"], 1, "cannot be read"),
        (["{t}/none.safetensors"], 1, "no such checkpoint"),
        (["{t}/bad.onnx"], 1, "onnxruntime cannot load it"),
        (["{t}/bad.pt2"], 1, "are written here and not read"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, checkpoint, arguments, code, words):
    for name in ("bad.onnx", "bad.pt2"):
        (tmp_path / name).write_bytes(b"nonsense")
    if any("onnx" in a for a in arguments):
        pytest.importorskip("onnxruntime")
    result = invoke("bench", *[a.format(t=tmp_path, c=checkpoint) for a in arguments])
    assert result.exit_code == code and words in result.output.replace("\n", " "), result.output
    assert isinstance(result.exception, SystemExit)
