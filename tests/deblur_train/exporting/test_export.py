"""``deblur-train export``: the file gives what the checkpoint gives, says how to feed it, or is not written."""

import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from blursynth.common.extras import install_extra
from deblur_train import build_generator, load_generator
from deblur_train.cli.main import main
from deblur_train.exporting.check import RealFrames, fit, psnr_change, synthetic, to_image, to_input
from deblur_train.exporting.export import ExportOptions, export
from deblur_train.exporting.graph import Portable, _extend
from deblur_train.exporting.to_pt2 import pt2_runner
from deblur_train.inference.restorer import load_restorer
from deblur_train.inference.runtimes import Runner, open_any, open_exported, torch_runner
from deblur_train.inference.signature import ExportError, Signature, UnsupportedExport, signature_from_words
from deblur_train.inference.tiles import restore
from deblur_train.models.base import reflect_to, start_near_identity
from deblur_train.models.checkpoint import CheckpointError, export_official
from tests.helpers.golden import fill, fixture
from tests.helpers.train_shards import make_data, scene

SIZES = [(96, 64), (101, 135), (33, 257)]


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def save(path, generator):
    state = {k: v.contiguous() for k, v in generator.state_dict().items() if not k.startswith("fpn.enc")}
    save_file(state, path)
    return path


def moved(name, seed=0, scale=0.3):
    """A generator whose answer differs from its input, by a moderate amount, as a trained one's does."""
    torch.manual_seed(seed)
    g = build_generator(name).eval()
    start_near_identity(g, scale)
    return g


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return save(folder / "g.safetensors", moved("mobilenet-dsc"))


@pytest.fixture(scope="module")
def data(folder):
    return make_data(folder / "data", shards=1, samples=6, val=2, h=96, w=128)


@pytest.fixture(scope="module")
def onnx_file(folder, checkpoint):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    result = invoke("export", "--checkpoint", checkpoint, "--format", "onnx", "--out", folder / "g.onnx")
    assert result.exit_code == 0, result.output
    return folder / "g.onnx"


def compare(path, checkpoint, sizes, norm_stats="tracked"):
    """Largest difference between a file and its checkpoint over several sizes."""
    g, exported = load_generator(checkpoint, norm_stats), open_exported(path)
    worst = moved_by = 0.0
    for i, size in enumerate(sizes):
        x = synthetic(size, seed=i)
        with torch.no_grad():
            want = g(torch.from_numpy(x)).numpy()
        got = exported(x)
        assert got.shape == want.shape
        worst, moved_by = max(worst, np.abs(got - want).max()), max(moved_by, np.abs(want - x).max())
    assert moved_by > 0.01, "an identity would prove nothing"
    return float(worst)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (32, 33), (40, 100)])
def test_padding_without_branches_is_the_generators(size):
    x = torch.randn(2, 3, *size)
    h, w = (-(-n // 32) * 32 for n in size)
    assert torch.equal(_extend(_extend(x, 2, h, False), 3, w, False), reflect_to(x, h, w))


def test_bytes_in_and_out_are_predict():
    """The uint8 wrapper gives the very code values that predict writes."""
    g = moved("mobilenet-dsc")
    rgb = scene(3, 45, 70)[0]
    with torch.no_grad():
        y = Portable(g, Signature("NHWC", "uint8"))(torch.from_numpy(rgb[None]))
    difference = y[0].numpy().astype(int) - restore(g, rgb)
    assert y.dtype == torch.uint8 and np.abs(difference).max() <= 1 and np.mean(difference != 0) < 1e-3


@pytest.mark.parametrize(
    "signature",
    [
        Signature(),
        Signature("NHWC", "uint8"),
        Signature("NHWC", "float32", (5, 7)),
        Signature(dtype="float16"),
    ],
)
def test_a_signature_survives_its_words(signature):
    assert signature_from_words(json.loads(json.dumps(signature.words()))) == signature


def test_frames_are_cut_to_their_centre_or_reflected():
    rgb = np.arange(6 * 8 * 3).reshape(6, 8, 3).astype(np.uint8)
    np.testing.assert_array_equal(fit(rgb, (2, 4)), rgb[2:4, 2:6])
    assert fit(rgb, (9, 4)).shape == (9, 4, 3)
    np.testing.assert_array_equal(to_image(to_input(rgb)), rgb)


def test_psnr_change_counts_what_is_lost():
    """Against a reference that is perfect to 1 code value, an error of 2 loses 6.02 dB."""
    rgb = np.full((8, 8, 3), 100, np.uint8)
    off = [Runner("eager", Signature(), lambda x, k=k: x + np.float32(k / 127.5)) for k in (1, 2)]
    change = psnr_change(*off, RealFrames([], [(rgb, rgb)], ""))
    assert change["loss_db"] == pytest.approx(20 * np.log10(2), abs=1e-6)
    assert change["against_fp32_db"] == pytest.approx(20 * np.log10(255), abs=1e-6)


@pytest.mark.slow
def test_onnx_equals_torch_at_any_size_and_batch(onnx_file, checkpoint):
    assert compare(onnx_file, checkpoint, [*SIZES, (1, 1), (2, 40)]) < 1e-3
    x = np.concatenate([synthetic((37, 50), s) for s in range(3)])
    both = open_exported(onnx_file)
    np.testing.assert_allclose(both(x)[1:2], both(x[1:2]), atol=1e-4)


@pytest.mark.slow
def test_onnx_says_how_to_feed_it(onnx_file, checkpoint, folder):
    import onnx

    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    assert {o.domain: o.version for o in model.opset_import}[""] == 20
    (given,), (taken,) = model.graph.input, model.graph.output
    assert (given.name, taken.name) == ("image", "restored")
    assert [bool(d.dim_param) for d in given.type.tensor_type.shape.dim] == [True, False, True, True]
    held = {p.key: p.value for p in model.metadata_props}
    assert held["backbone"] == "mobilenet-dsc" and held["precision"] == "fp32"
    words = json.loads(held["io"])
    assert words["layout"] == "NCHW" and words["range"] == [-1, 1] and words["colour"] == "RGB"
    report = json.loads((folder / "g.onnx.json").read_text())
    assert report["bytes"] == onnx_file.stat().st_size and report["io"] == words
    assert [(r["height"], r["width"]) for r in report["parity"]] == [(160, 192), (101, 135)]
    assert all(r["max_abs"] < 1e-3 for r in report["parity"])
    assert report["latency"]["median_ms"] > 0 and report["opset"] == 20
    assert not list(folder.glob(".*.part"))


@pytest.mark.slow
def test_the_official_layout_goes_predict_export_onnxruntime(folder, onnx_file):
    """An official .h5, filled by rule, gives through predict and through ONNX the same code values, with the image's own
    statistics, as official inference has it; those differ from the tracked ones."""
    rule = fixture("mobilenet")
    official, out = folder / "official.h5", folder / "official.onnx"
    export_official(fill(build_generator("mobilenet"), rule["gain"], rule["alias_groups"]).eval(), official)
    result = invoke(
        *("export", "--checkpoint", official, "--format", "onnx", "--norm-stats", "image", "--out", out),
        *("--height", 77, "--width", 130),
    )
    assert result.exit_code == 0, result.output
    rgb = scene(5, 77, 130)[0]
    exported = to_image(open_exported(out)(to_input(rgb))).astype(int)
    predicted = restore(load_generator(official, "image"), rgb).astype(int)
    # Sums in another order move a value by 1e-5 of the range; one in a thousand lies that close to a rounding edge.
    assert np.abs(predicted - exported).max() <= 1 and np.mean(predicted != exported) < 5e-3
    tracked = restore(load_generator(official), rgb).astype(int)
    assert np.mean(tracked != exported) > 0.5 and np.mean(predicted != rgb) > 0.5


@pytest.mark.slow
def test_int8_for_cpus(folder, checkpoint, data, onnx_file):
    import onnx

    out = folder / "int8.onnx"
    result = invoke(
        *("export", "--checkpoint", checkpoint, "--format", "onnx", "--precision", "int8"),
        *("--calib", data, "--calib-frames", 6, "--height", 96, "--width", 128, "--out", out),
    )
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "int8.onnx.json").read_text())
    change = report["psnr_change"]
    assert change["frames"] == 2 and abs(change["loss_db"]) < 0.3 and 35 < change["against_fp32_db"] < 99
    assert report["bytes"] < 0.5 * onnx_file.stat().st_size
    model = onnx.load(out)
    assert {p.key: p.value for p in model.metadata_props}["precision"] == "int8"
    maker = {o: n for n in model.graph.node for o in n.output}
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    quantised = [n for n in convolutions if maker.get(n.input[1]) is not None]
    assert len(convolutions) - len(quantised) == 2, "the last separable convolution stays in float"
    for node in quantised:
        weight = maker[node.input[1]]
        scale, values = kept[weight.input[1]], kept[weight.input[0]]
        assert weight.op_type == "DequantizeLinear" and values.dtype == np.int8
        assert scale.shape == (values.shape[0],), "a scale for each output channel"
        assert np.abs(values.astype(int)).max() <= 64, "7 bits"
    assert compare(out, checkpoint, [(96, 128)]) < 0.1


@pytest.mark.slow
def test_int8_for_tensorrt_is_symmetric(onnx_file):
    """TensorRT refuses zero points other than 0, unsigned bytes, and quantised biases."""
    import onnx

    from deblur_train.exporting.to_onnx import quantise

    images = [to_input(scene(i, 64, 96)[0]) for i in range(3)]
    model = onnx.load_from_string(quantise(onnx_file.read_bytes(), images, "tensorrt"))
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 100
    for node in pairs:
        zero = kept[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
    x = synthetic((64, 96))
    difference = np.abs(
        Runner("onnxruntime", Signature(), _session(model.SerializeToString()))(x)
        - open_exported(onnx_file)(x)
    )
    assert difference.mean() < 0.02


def _session(model):
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0]


@pytest.mark.slow
def test_pt2_takes_bytes_of_any_size(folder, checkpoint):
    out = folder / "g.pt2"
    result = invoke(
        *("export", "--checkpoint", checkpoint, "--format", "pt2", "--io", "uint8", "--out", out),
    )
    assert result.exit_code == 0, result.output
    exported, g = pt2_runner(out.read_bytes(), str(out)), load_generator(checkpoint)
    assert exported.runtime == "pt2" and exported.signature == Signature("NHWC", "uint8")
    for size in ((1, 1), (5, 40), (64, 96), (45, 70)):
        rgb = scene(1, *size)[0]
        difference = np.abs(exported.run(rgb[None])[0].astype(int) - restore(g, rgb))
        assert difference.max() <= 1 and np.mean(difference != 0) < 1e-3


@pytest.mark.slow
def test_above_the_tolerance_nothing_is_written(tmp_path, checkpoint):
    """Half precision cannot keep to 1e-9: exit 1, the words say why, and no file or temporary file is left."""
    out = tmp_path / "half.pt2"
    result = invoke(
        *("export", "--checkpoint", checkpoint, "--format", "pt2", "--precision", "fp16"),
        *("--height", 32, "--width", 40, "--tolerance", 1e-9, "--out", out),
    )
    assert result.exit_code == 1 and "not written" in result.output and "more than 1e-09" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_litert_equals_torch(folder, checkpoint):
    pytest.importorskip("litert_torch", reason="the tflite extra (1.2 GB) is not installed")
    out = folder / "g.tflite"
    result = invoke(
        *("export", "--checkpoint", checkpoint, "--format", "tflite", "--height", 45, "--width", 70),
        *("--out", out),
    )
    assert result.exit_code == 0, result.output
    assert compare(out, checkpoint, [(45, 70)]) < 1e-3
    runner = open_exported(out)
    assert runner.signature == Signature("NHWC", "float32", (45, 70))
    with pytest.raises(ExportError, match="45 x 70 pixels only"):
        runner(synthetic((64, 64)))


class Bomb:
    def __reduce__(self):
        return (print, ("the bomb went off",))


def test_a_checkpoint_with_code_is_refused(tmp_path, capfd):
    torch.save({"model": Bomb()}, tmp_path / "bomb.h5")
    result = invoke(
        "export", "--checkpoint", tmp_path / "bomb.h5", "--format", "pt2", "--out", tmp_path / "x.pt2"
    )
    assert result.exit_code == 1 and "could run code" in result.output
    assert "went off" not in result.output + capfd.readouterr().out
    assert not (tmp_path / "x.pt2").exists()


GRAPH = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
# Code in each place of a torch.export archive that some loader runs it from, in the present layouts and in older ones.
HOSTILE = {
    "a pickled sample input": [("archive/data/sample_inputs/model.pt", pickle.dumps(Bomb()))],
    "the old layout": [("serialized_state_dict.pt", pickle.dumps(Bomb())), ("version", b"8.1")],
    "the oldest layout": [
        ("serialized_exported_program.json", b"{}"),
        ("serialized_constants.pt", pickle.dumps(Bomb())),
    ],
    "use_pickle": [(WEIGHTS, b'{"config": {"w": {"use_pickle": true}}}')],
    "use_pickle in escapes": [(WEIGHTS, b'{"config": {"w": {"use\\u005fpickle": true}}}')],
    "use_pickle twice": [(WEIGHTS, b'{"config": {"w": {"use_pickle": false, "use_pickle": true}}}')],
    "a member twice": [(WEIGHTS, b"{}"), (WEIGHTS, b'{"config": {"w": {"use_pickle": true}}}')],
    "a custom object": [("archive/data/constants/custom_obj_0", pickle.dumps(Bomb()))],
    "a library": [("archive/data/aotinductor/model/x.so", b"\x7fELF")],
    "an expression": [(GRAPH, b"{\"expr_str\": \"__import__('os').system('true')\"}")],
    "another prefix": [("other/data/constants/custom_obj_0", pickle.dumps(Bomb()))],
    "a path outside": [("../../data/constants/custom_obj_0", pickle.dumps(Bomb()))],
    "upper case": [("ARCHIVE/DATA/CONSTANTS/CUSTOM_OBJ_0", pickle.dumps(Bomb()))],
    "a checkpoint's pickle": [("archive/data.pkl", pickle.dumps(Bomb())), ("archive/version", b"3")],
    "a script module": [
        ("archive/code/__torch__.py", b"import os"),
        ("archive/constants.pkl", pickle.dumps(Bomb())),
    ],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("shape", sorted(HOSTILE))
@pytest.mark.parametrize("suffix", [".pt2", ".PT2", ".pt", ".safetensors"])
def test_no_code_runs_from_an_archive_whatever_its_name(tmp_path, capfd, shape, suffix):
    """A torch.export file is a program and is not read; under a checkpoint's name it is no checkpoint."""
    path = tmp_path / f"x{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        for member, held in HOSTILE[shape]:
            archive.writestr(member, held)
    with pytest.raises((ExportError, CheckpointError)) as e:
        open_any(path)
    with pytest.raises((ExportError, CheckpointError)):
        load_restorer(path)
    assert len(str(e.value).splitlines()) == 1 and "went off" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--format", "onnx", "--precision", "int8", "--out", "x.onnx"], 2, "needs --calib"),
        (["--format", "tflite", "--precision", "int8", "--calib", "d", "--out", "x.tflite"], 2, "onnx only"),
        (["--format", "tflite", "--precision", "fp16", "--out", "x.tflite"], 2, "not written as tflite"),
        (["--format", "pt2", "--precision", "int8", "--calib", "d", "--out", "x.pt2"], 2, "fp32 or fp16"),
        (["--format", "onnx", "--io", "float16", "--out", "x.onnx"], 2, "--precision fp16 only"),
        (["--format", "onnx", "--int8-for", "tensorrt", "--out", "x.onnx"], 2, "--precision int8 only"),
        (["--format", "onnx", "--out", "x.pt2"], 2, "must end in .onnx"),
        (["--format", "onnx", "--height", "3", "--out", "x.onnx"], 2, "both --height and --width"),
        (["--format", "onnx", "--norm-stats", "local", "--out", "x.onnx"], 2, "local"),
        (["--format", "coreml", "--out", "x.mlmodel"], 2, "coreml"),
        (["--format", "pt2", "--checkpoint", "{t}/none", "--out", "x.pt2"], 1, "no such checkpoint"),
        (
            ["--format", "pt2", "--checkpoint", "{t}/other.safetensors", "--out", "x.pt2"],
            1,
            "neither a DeblurGAN-v2",
        ),
        (["--format", "pt2", "--calib", "{t}/none", "--out", "x.pt2"], 1, "no such folder"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, checkpoint, arguments, code, words):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    given = [a.format(t=tmp_path) for a in arguments]
    given[given.index("--out") + 1] = str(tmp_path / given[given.index("--out") + 1])
    given += [] if "--checkpoint" in given else ["--checkpoint", str(checkpoint)]
    result = invoke("export", *given)
    assert result.exit_code == code and words in " ".join(result.output.split()), result.output
    assert isinstance(result.exception, SystemExit)
    assert [p.name for p in tmp_path.iterdir()] == ["other.safetensors"]


@pytest.mark.parametrize(
    ("format_", "module", "extra"),
    [
        ("onnx", "onnxscript", "export"),
        ("onnx", "onnxruntime", "export"),
        ("tflite", "litert_torch", "tflite"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, checkpoint, monkeypatch, format_, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    out = tmp_path / f"x.{format_}"
    result = invoke("export", "--checkpoint", checkpoint, "--format", format_, "--out", out)
    assert result.exit_code == 1 and install_extra(extra) in result.output, result.output
    assert not out.exists()


def test_a_checkpoint_of_another_kind_of_file(tmp_path):
    assert torch_runner(moved("mobilenet-dsc")).runtime == "eager"
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(ExportError, match="not an exported file"):
        open_exported(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("out", "settings", "words"),
    [
        ("m.onnx", {"precison": "int8"}, "precison: no option of export .did you mean 'precision'"),
        ("m.onnx", {"precision": "int4"}, "precision: must be one of fp32, fp16, int8, not 'int4'"),
        ("m.onnx", {"format": "tflite"}, "must end in .tflite"),
        ("m.bin", {}, "must end in .onnx, .tflite, .pt2, or give format="),
        ("m.onnx", {"options": ExportOptions("onnx"), "opset": 19}, "opset: given beside options"),
    ],
)
def test_export_from_python_names_the_callers_own_argument(tmp_path, checkpoint, out, settings, words):
    with pytest.raises(UnsupportedExport, match=words):
        export(checkpoint, tmp_path / out, **settings)
    assert not (tmp_path / out).exists()


def test_export_from_python_by_the_names_of_the_options(tmp_path, checkpoint):
    report = export(str(checkpoint), str(tmp_path / "m.pt2"), size=(64, 64), precision="fp32")
    assert report["format"] == "pt2" and (tmp_path / "m.pt2").exists()
