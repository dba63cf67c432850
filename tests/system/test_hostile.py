"""Whatever lies in a recipe, a shard, a sidecar or a picture: a plain error or a sound value, and nothing else happens.

What is declared: RecipeError, ShardError, ValueError of ``parse_sample_json``; ``index_data``, ``verify`` and
``read_still`` raise nothing. Nothing is written, and memory stays within bounds.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import blursynth
from blursynth.checks.explain import find_sample, read_recipe
from blursynth.checks.shard_files import ShardFiles
from blursynth.checks.verify import verify
from blursynth.preview.index import index_data
from blursynth.recipe import Recipe, RecipeError, RunOptions, load_recipe
from blursynth.run.folder import OutputError
from blursynth.run.outcome import Outcome, fill_outcome
from blursynth.run.report import RunLog
from blursynth.shards.picture import MAX_PIXELS, decode_image, encode_image, image_size
from blursynth.shards.schema import parse_sample_json
from blursynth.shards.shard import KEY, ShardError, parse_sidecar, read_shard
from blursynth.video.stills import read_still
from tests.helpers.hostile import JSON, TRICKS, png, png_bomb, tars

# The same examples each time, so that a run of the tests means something; FUZZ_EXAMPLES=5000 looks for new ones.
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RECIPE_KEYS = sorted(Recipe.model_fields.keys() | RunOptions.model_fields.keys())
SIDE = {
    "schema": 1, "samples": 1, "recipe_sha256": "r", "plan_sha256": "p", "counts": {"written": 1, "rejected": {}},
}  # fmt: skip


def one_line(e: Exception) -> bool:
    return len(str(e).splitlines()) == 1 and len(str(e)) > 10


def refused_or_fine(path: Path) -> None:
    try:
        recipe, run = load_recipe(str(path))
    except RecipeError as e:
        assert one_line(e), str(e)
    else:
        assert len(recipe.sha256) == 64 and isinstance(run, RunOptions)


@FUZZ
@given(st.binary(max_size=300))
@example(b"a = " + b"[" * 100_000)
@example(b"seed = " + b"9" * 5000)
@example(b"window = 1" + b"0" * 400)
@example(b"duty = nan")
@example(b'src = "a\\u0000b"')
@example(b'out = "a\\u0000b"')
def test_any_bytes_as_a_recipe(tmp_path, data):
    path = tmp_path / "r.toml"
    path.write_bytes(data)
    refused_or_fine(path)


TOML = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(["9", "0-3", "9" * 5000, "hint:", "1e400", "nan", "-", "../../x.npy", "off", "a<b,c<"]),
    st.lists(st.integers(0, 9), max_size=3), st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
)  # fmt: skip


@FUZZ
@given(
    st.dictionaries(
        st.one_of(st.sampled_from(RECIPE_KEYS), st.text(st.characters(codec="utf-8"), max_size=9)), TOML
    )
)
def test_any_value_for_any_key_of_a_recipe(tmp_path, table):
    path = tmp_path / "r.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    refused_or_fine(path)
    (tmp_path / "recipe.toml").write_bytes(path.read_bytes())
    try:
        read_recipe(tmp_path)  # as explain reads what lies beside the shards
    except RecipeError as e:
        assert one_line(e)


def sample_json() -> dict:
    source = {"dataset": None, "clip": "c", "path": "c", "sha256": "0" * 64, "fps": 240.0}
    return {
        "schema": 1, "key": "k", "seed": 0, "recipe_sha256": "0" * 64, "version": "0",
        "source": source | {"first": 0, "last": 8, "target": 4},
        "exposure": {
            "window": 9, "stride": 9, "fps_up": 16, "interp": "dis", "profile": "box", "shutter_ms": 1.0,
            "duty": 1.0, "readout_ms": 0.0, "substeps": {"mean": 1.0, "max": 1},
        },
        "camera": {"crf": "srgb", "highlights": None, "noise": None},
        "flow": dict.fromkeys(("median_px", "p95_px", "max_px", "fb_error_px", "occluded")),
        "quality": {"score": None, "flags": []},
    }  # fmt: skip


@FUZZ
@given(
    st.sampled_from(sorted(sample_json())),
    st.sampled_from(["", "first", "path", "window", "substeps", "crf"]),
    JSON,
)
def test_any_value_in_a_samples_json(group, key, value):  # fmt: skip
    meta = sample_json()
    if isinstance(meta[group], dict) and key in meta[group]:
        meta[group][key] = value
    else:
        meta[group] = value
    data = json.dumps(meta).encode("utf-8", "surrogatepass")
    try:
        got = parse_sample_json(data)
    except ValueError as e:
        assert one_line(e)
    else:
        assert KEY.fullmatch(got.key) and 0 <= got.source.first <= got.source.target <= got.source.last


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(["samples", "bytes", "sha256", "counts", "errors", "schema", "shard"]), JSON
    )
)
def test_any_value_in_a_sidecar(table):  # fmt: skip
    data = json.dumps(SIDE | {"bytes": 5, "sha256": "0"} | table).encode("utf-8", "surrogatepass")
    try:
        side = parse_sidecar(data, "train-000000.json")
    except ShardError as e:
        assert one_line(e) and "train-000000.json" in str(e)
    else:
        outcome = fill_outcome(Outcome("train-000000"), side)  # what make does with it
        assert outcome.samples >= 0 and sum(outcome.rejects.values()) >= 0


def check_tar(folder: Path, data: bytes) -> None:
    """All readers of a shard, over one that may be hostile and that its sidecar vouches for."""
    tar = folder / "train-000000.tar"
    tar.write_bytes(data)
    side = SIDE | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "train-000000.json").write_text(json.dumps(side))
    before = {p: p.read_bytes() for p in folder.rglob("*")}
    try:
        for sample in read_shard(tar):
            assert KEY.fullmatch(sample.pop("__key__")) and sum(map(len, sample.values())) <= len(data)
    except ShardError as e:
        assert one_line(e) and str(tar) in str(e)
    index = index_data(tar)
    assert all(o >= 0 and n >= 0 and o + n <= len(data) for e in index.entries for o, n in e.at.values())
    report = verify(folder, workers=1)
    assert report.problems, "no such tar is sound data"
    with pytest.raises((ShardError, OutputError)):
        find_sample(ShardFiles(folder), "no such key")
    assert {p: p.read_bytes() for p in folder.rglob("*")} == before, "nothing is written"


@FUZZ
@given(tars())
def test_any_tar(tmp_path, data):
    (tmp_path / "d").mkdir(exist_ok=True)
    check_tar(tmp_path / "d", data)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("trick", sorted(TRICKS))
def test_tricks_on_pythons_tar_reader(tmp_path, trick):
    """Each of these hangs, fills the memory or ends in a traceback with tarfile alone."""
    (tmp_path / "d").mkdir()
    check_tar(tmp_path / "d", TRICKS[trick])
    with pytest.raises(ShardError):
        list(read_shard(tmp_path / "d" / "train-000000.tar"))


@FUZZ
@given(JSON, st.one_of(st.none(), st.binary(max_size=100)))
def test_any_index_and_run_log_beside_the_shards(tmp_path, value, raw):
    data = json.dumps(value).encode("utf-8", "surrogatepass") if raw is None else raw
    (tmp_path / "train-000000.json").write_text("{}")
    (tmp_path / "dataset.json").write_bytes(data)
    (tmp_path / "run.jsonl").write_bytes(data + b"\n" + b"[" * 20_000)
    assert verify(tmp_path, workers=1).problems
    start = RunLog.last_start(tmp_path / "run.jsonl")
    assert start is None or start["event"] == "start"


PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
FILES = {e: cv2.imencode(e, PICTURE)[1].tobytes() for e in (".png", ".jpg", ".webp", ".bmp", ".tiff")}


@FUZZ
@given(
    st.sampled_from(sorted(FILES)),
    st.integers(0, 3000),
    st.binary(max_size=12),
    st.one_of(st.none(), st.integers(0, 3000)),
)
def test_any_picture_file(tmp_path, kind, at, noise, cut):  # fmt: skip
    data = FILES[kind]
    data = (data[: at % len(data)] + noise + data[at % len(data) + len(noise) :])[:cut]
    (tmp_path / "x.bin").write_bytes(data)
    image = read_still(tmp_path / "x.bin")
    assert image is None or (
        image.dtype == np.uint8 and image.shape[2] == 3 and image[..., 0].size <= MAX_PIXELS
    )
    image_size(data)
    try:
        assert decode_image(data, "x").shape[2] == 3
    except ShardError as e:
        assert one_line(e) or str(e).startswith("x: ")


@pytest.mark.parametrize("kind", sorted(FILES))
def test_the_size_in_the_header_is_the_pictures(kind):
    assert image_size(FILES[kind]) == ((32, 24) if kind != ".tiff" else None)


def test_decompression_bombs_take_no_memory(tmp_path):
    """In a process of its own, whose memory the pictures alone can raise."""
    bombs = [png_bomb(), png(2**31 - 1, 2**31 - 1), png(100_000, 100_000)]
    webp = bytearray(encode_image(PICTURE, "webp"))
    webp[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
    for i, data in enumerate([*bombs, bytes(webp)]):
        (tmp_path / str(i)).write_bytes(data)
    code = """
import resource, sys
from pathlib import Path
from blursynth.shards.picture import decode_image
from blursynth.shards.shard import ShardError
from blursynth.video.stills import read_still
files = sorted(Path(sys.argv[1]).iterdir())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for p in files:
    assert read_still(p) is None, p
    try:
        decode_image(p.read_bytes(), "x")
    except ShardError as e:
        assert "pixels" in str(e), e
    else:
        raise AssertionError(p)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 64, "MB; one of them decoded would be 290"


def test_a_profile_or_curve_file_is_never_unpickled(tmp_path):
    """np.load would run what a pickled array says."""
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (mark,)

    from blursynth.camera.response import CameraError, load_response
    from blursynth.exposure.shutter import load_profile

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    for load in (load_profile, load_response):
        with pytest.raises((RecipeError, CameraError)) as e:
            load(str(tmp_path / "evil.npy"))
        assert one_line(e.value)
    assert not mark.exists()


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
}
FORBIDDEN |= {
    "joblib.load",
    "marshal.loads",
    "yaml.load",
    "shelve.open",
    "tarfile.extractall",
    "shutil.unpack_archive",
}


@pytest.mark.parametrize("package", ["blursynth", "deblur_train", "pipelines"])
def test_nothing_in_the_source_runs_or_unpickles_data(package):
    """torch.load with weights_only, np.load without pickles, and none of what runs what it reads."""
    root = Path(blursynth.__file__).parents[1] / package
    calls = 0
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            calls += 1
            assert name not in FORBIDDEN and not name.endswith((".extractall", ".extract")), f"{path}: {name}"
            if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
                assert options.get("weights_only") == "True", path
            if name == "np.load":
                assert options.get("allow_pickle") == "False", path
    assert calls > 20
