"""Whatever lies in a shard, a picture, a checkpoint or a config: a declared error or a sound value, nothing else.

What is declared: DecodeError, ImageError, CheckpointError, ConfigError; ``index_shard`` raises nothing and names what it
leaves out. No code runs, nothing is written, memory stays within bounds.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from blursynth.shards.picture import MAX_PIXELS
from blursynth.shards.schema import KEY, problem_with
from deblur_train.config import ConfigError, TrainConfig, load_config
from deblur_train.data.index import index_shard
from deblur_train.data.pictures import DecodeError, ShardReader, decode_linear16, decode_rgb
from deblur_train.data.remote import _facts
from deblur_train.media.pictures import ImageError, read_picture
from deblur_train.models.checkpoint import CheckpointError, load_generator, read_state, read_torch
from deblur_train.training.run_folder import restore_run
from deblur_train.training.step import Learner
from tests.helpers.hostile import JSON, TRICKS, chunk, png, png_bomb, tars
from tests.helpers.train_shards import encode, meta, sample, scene, write_tar

# The same examples each time, so that a run of the tests means something; FUZZ_EXAMPLES=5000 looks for new ones.
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def one_line(e: Exception) -> bool:
    return len(str(e).splitlines()) == 1 and len(str(e)) > 10


def check_tar(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    before = sorted(path.parent.rglob("*"))
    samples, faults = index_shard(path, 0)
    for s in samples:
        assert KEY.fullmatch(s.key)
        assert all(o >= 0 and n >= 0 and o + n <= len(data) for o, n in (s.blur, s.sharp))
        reader = ShardReader([path])
        try:
            blur, sharp = reader.pair(s)
        except DecodeError:
            pass
        else:
            assert blur.shape == sharp.shape and blur.dtype == np.uint8
        reader.close()
    assert all(f.reason for f in faults)
    assert sorted(path.parent.rglob("*")) == before, "nothing is written"


@FUZZ
@given(tars())
def test_any_tar(tmp_path, data):
    check_tar(tmp_path / "train-000000.tar", data)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("trick", sorted(TRICKS))
def test_tricks_on_pythons_tar_reader(tmp_path, trick):
    """Each of these hangs, fills the memory or ends in a traceback with tarfile alone."""
    check_tar(tmp_path / "train-000000.tar", TRICKS[trick])
    assert index_shard(tmp_path / "train-000000.tar", 0)[0] == []


@FUZZ
@given(st.integers(0, 60_000), st.binary(min_size=1, max_size=600))
def test_any_bytes_written_over_a_shard(tmp_path_factory, at, noise):
    tmp = tmp_path_factory.mktemp("d")
    path = write_tar(tmp / "train-000000.tar", sample("a", 1) + sample("b", 2))
    data = path.read_bytes()
    at %= len(data)
    check_tar(path, data[:at] + noise + data[at + len(noise) :])


@FUZZ
@given(st.sampled_from(sorted(meta("k"))), st.sampled_from(["clip", "crf", "first", "window", ""]), JSON)
def test_any_value_in_a_samples_json(group, key, value):
    m = meta("k")
    if isinstance(m[group], dict) and key in m[group]:
        m[group][key] = value
    else:
        m[group] = value
    why = problem_with(m, "k")
    assert why is None or one_line(ValueError(why))


@FUZZ
@given(JSON)
@example({"bytes": float("inf"), "sha256": "0"})
@example({"bytes": "9" * 5000})
def test_any_sidecar_of_a_bucket(value):
    size, digest = _facts(json.dumps(value).encode("utf-8", "surrogatepass"))
    assert isinstance(size, int) and isinstance(digest, str)


BLUR = scene(0)[0]
FILES = {e: encode(BLUR, e) for e in (".png", ".webp", ".jpg", ".bmp", ".tiff")}


@FUZZ
@given(
    st.sampled_from(sorted(FILES)),
    st.integers(0, 20_000),
    st.binary(max_size=12),
    st.one_of(st.none(), st.integers(0, 20_000)),
)
def test_any_picture(tmp_path, kind, at, noise, cut):  # fmt: skip
    data = FILES[kind]
    at %= len(data)
    data = (data[:at] + noise + data[at + len(noise) :])[:cut]
    for decode in (decode_rgb, decode_linear16):
        try:
            assert decode(data).shape[2] == 3
        except DecodeError as e:
            assert str(e)
    (tmp_path / "x.png").write_bytes(data)
    try:
        picture = read_picture(tmp_path / "x.png")
    except ImageError as e:
        assert one_line(e) and "x.png" in str(e)
    else:
        assert picture.rgb.ndim == 3 and picture.rgb.dtype in (np.uint8, np.uint16)


@FUZZ
@given(
    st.sampled_from([".jpg", ".png", ".webp"]),
    st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]),
    st.binary(max_size=80),
)
def test_any_tags(tmp_path, kind, start, rest):  # fmt: skip
    """EXIF blocks of any content: the picture is there, upright or as stored."""
    data, tags = FILES[kind], start + rest
    if kind == ".jpg":
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 8) + b"Exif\0\0" + tags + data[2:]
    elif kind == ".png":
        data = data[:33] + chunk(b"eXIf", tags) + data[33:]
    else:
        body = data[8:] + b"EXIF" + struct.pack("<I", len(tags)) + tags + bytes(len(tags) % 2)
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    path = tmp_path / f"x{kind}"
    path.write_bytes(data)
    shape = read_picture(path).rgb.shape
    assert shape in (BLUR.shape, (BLUR.shape[1], BLUR.shape[0], 3))


def test_decompression_bombs_take_no_memory(tmp_path):
    """In a process of its own, whose memory the pictures alone can raise."""
    webp = bytearray(cv2.imencode(".webp", BLUR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes())
    webp[21:25] = (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
    bombs = [png_bomb(), png(2**31 - 1, 2**31 - 1), png(100_000, 100_000), bytes(webp)]
    for i, data in enumerate(bombs):
        (tmp_path / str(i)).write_bytes(data)
    code = """
import resource, sys
from pathlib import Path
from deblur_train.media.pictures import ImageError, read_picture
from deblur_train.data.pictures import DecodeError, decode_rgb
files = sorted(Path(sys.argv[1]).iterdir())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for p in files:
    try:
        decode_rgb(p.read_bytes())
    except DecodeError as e:
        assert "pixels" in str(e), e
    else:
        raise AssertionError(p)
for p in files[1:3]:  # the first and the last are within what predict takes
    try:
        read_picture(p)
    except ImageError as e:
        assert "too large" in str(e), e
    else:
        raise AssertionError(p)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 64, f"MB; one of them decoded would be {MAX_PIXELS / 1e6:.0f} and more"


def test_an_error_of_opencv_is_a_decode_error(monkeypatch):
    def refuse(*_):
        raise cv2.error("no memory")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(DecodeError):
        decode_rgb(FILES[".webp"])


# Checkpoints ---------------------------------------------------------------------------------------------------------


def read_or_refuse(path: Path) -> None:
    for read in (read_state, load_generator):
        try:
            read(path)
        except CheckpointError as e:
            assert one_line(e) and path.name in str(e), str(e)


WEIGHTS = {"fpn.features.0.0.weight": torch.arange(8.0), "b": torch.zeros(2, 3)}


def torch_bytes(zipped: bool) -> bytes:
    f = io.BytesIO()
    torch.save({"model": WEIGHTS}, f, _use_new_zipfile_serialization=zipped)
    return f.getvalue()


GOOD = {"safetensors": save(WEIGHTS, {"crop": "256"}), "zip": torch_bytes(True), "legacy": torch_bytes(False)}


@FUZZ
@given(
    st.sampled_from(sorted(GOOD)),
    st.integers(0, 5000),
    st.binary(max_size=16),
    st.one_of(st.none(), st.integers(0, 5000)),
)
def test_any_bytes_written_over_a_checkpoint(tmp_path, kind, at, noise, cut):  # fmt: skip
    data = GOOD[kind]
    at %= len(data)
    path = tmp_path / "w.bin"
    path.write_bytes((data[:at] + noise + data[at + len(noise) :])[:cut])
    read_or_refuse(path)


@FUZZ
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"12345678{"])
)
def test_any_bytes_as_a_checkpoint(tmp_path, data, start):
    path = tmp_path / "w.bin"
    path.write_bytes(start + data)
    read_or_refuse(path)


@FUZZ
@given(st.dictionaries(st.sampled_from(["a", "__metadata__", "fpn.features.0.0.weight"]), JSON, max_size=3))
@example({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 16]}})
@example({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**62]}})
@example({"a": {"dtype": "I4", "shape": [4], "data_offsets": [0, 16]}})
def test_any_safetensors_header(tmp_path, table):
    head = json.dumps(table).encode("utf-8", "surrogatepass")
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))
    read_or_refuse(path)


@pytest.mark.parametrize("crop", ["", "nan", "-1", "1e400", "9" * 50, "x"])
def test_a_senseless_crop_beside_the_weights_is_not_believed(tmp_path, crop):
    from deblur_train.models.generator import build_generator

    path = tmp_path / "w.safetensors"
    weights = build_generator("mobilenet-dsc").state_dict()
    path.write_bytes(save({k: v.clone() for k, v in weights.items()}, {"crop": crop}))
    load_generator(path, norm_stats="local")


COMMANDS = [
    b"cposix\nsystem\n(S'touch {}'\ntR.",
    b'cbuiltins\neval\n(S\'open("{}", "w")\'\ntR.',
    b'c__builtin__\nexec\n(S\'open("{}", "w")\'\ntR.',
    b"csubprocess\ncall\n((S'touch'\nS'{}'\nltR.",
    b"(S'{}'\nipathlib\nPath\n.",
    b"cpathlib\nPath\n(S'{}'\ntRctorch.storage\n_load_from_bytes\n.",
]


@pytest.mark.parametrize("archive", ["legacy", "zip", "compressed"])
@pytest.mark.parametrize("code", COMMANDS)
def test_no_pickle_runs_code(tmp_path, code, archive):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    pickled = b"\x80\x02" + code.replace(b"{}", str(mark).encode())
    if archive == "legacy":
        path.write_bytes(pickled)
    else:
        packing = zipfile.ZIP_DEFLATED if archive == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", packing) as z:
            z.writestr("archive/data.pkl", pickled)
            z.writestr("archive/version", b"3\n")
    with pytest.raises(CheckpointError):
        read_state(path)
    assert not mark.exists()


def test_a_packed_archive_does_not_unpack(tmp_path):
    """200 MB of zeros in 200 kB: torch itself would take it."""
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"model": {"a": torch.zeros(50 * 2**20 // 4)}}, plain)
    with zipfile.ZipFile(plain) as a, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as b:
        for name in a.namelist():
            b.writestr(name, a.read(name))
    assert packed.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="compressed"):
        read_state(packed)


@pytest.fixture(scope="module")
def learner():
    config = {"backbone": "mobilenet-dsc", "crop": 64, "batch_size": 2, "device": "cpu", "shards": "x"}
    return Learner(TrainConfig.model_validate(config), torch.device("cpu"))


TORCH = st.recursive(
    st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=5), st.floats(), st.just(torch.zeros(2))),
    lambda part: st.one_of(
        st.lists(part, max_size=3), st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=5,
)


@settings(parent=FUZZ, max_examples=FUZZ.max_examples // 4)
@given(
    st.sampled_from(
        ["config", "ranks", "rng", "rng_cuda", "step", "generator", "opt_g", "pools", "ema", "format"]
    ),
    st.one_of(st.just("absent"), TORCH),
)
def test_any_value_in_a_saved_run(tmp_path, learner, key, value):  # fmt: skip
    config = tomli_w.dumps({"backbone": "mobilenet-dsc", "batch_size": 2})
    state = {"format": 1, "step": 1, "batch": 1, "best": None, "ranks": 1, "config": config}
    state |= {"rng": torch.get_rng_state(), "rng_cuda": [], **learner.state_dict(), key: value}
    if isinstance(value, str) and value == "absent":
        del state[key]
    torch.save(state, tmp_path / "last.pt")
    before = torch.get_rng_state()
    try:
        restore_run(tmp_path / "last.pt", learner)
    except CheckpointError as e:
        assert one_line(e) and "last.pt" in str(e)
    torch.set_rng_state(before)


def test_a_saved_run_that_is_a_list_or_code_is_refused(tmp_path, learner):
    torch.save([1], tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="not a run"):
        restore_run(tmp_path / "last.pt", learner)
    (tmp_path / "last.pt").write_bytes(pickle.dumps(os.getpid))
    with pytest.raises(CheckpointError):
        read_torch(tmp_path / "last.pt")


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.sampled_from(sorted(TrainConfig.model_fields)), JSON).map(repr),
    )
)
@example(b"a = " + b"[" * 100_000)
@example(b"steps = " + b"9" * 5000)
@example(b"seed = 1" + b"0" * 400)
def test_any_config(tmp_path, data):  # fmt: skip
    path = tmp_path / "c.toml"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data, encoding="utf-8", errors="replace")
    try:
        assert isinstance(load_config(str(path)), TrainConfig)
    except ConfigError as e:
        assert one_line(e)


@FUZZ
@given(
    st.sampled_from(sorted(TrainConfig.model_fields)),
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(st.characters(codec="utf-8"), max_size=9),
        st.booleans(),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 9), max_size=2),
    ),
)
def test_any_value_for_any_key_of_a_config(tmp_path, key, value):  # fmt: skip
    path = tmp_path / "c.toml"
    path.write_text(tomli_w.dumps({key: value}), encoding="utf-8")
    try:
        assert isinstance(load_config(str(path)), TrainConfig)
    except ConfigError as e:
        assert one_line(e)
