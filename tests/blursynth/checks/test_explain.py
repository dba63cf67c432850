"""``explain``: the frames, weights and settings of a sample, and the proof that they make it."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from blursynth.checks.explain import explain, frame_weights
from blursynth.run.folder import OutputError
from blursynth.run.make import make
from tests.blursynth.checks.test_verify import rewrite
from tests.helpers import make_fakes
from tests.helpers.make_fakes import MeanSynthesizer, frames_folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr("blursynth.checks.explain.default_synthesizer", lambda r, w: MeanSynthesizer(r, w))
    for i in range(2):
        frames_folder(tmp_path / "src" / f"clip{i}", 40, seed=i)
    run(tmp_path / "src", tmp_path / "data")
    return tmp_path / "data"


def run(src, out, **options):
    return make(src, out, task=make_fakes.mean_task, workers=1, interp="none", quiet=True, **options)


def test_it_rebuilds_the_bytes_and_tells_the_frames(data, tmp_path):
    told = explain(data, "clip1_000018_09", picture=str(tmp_path / "sheet.png"))
    assert told.rebuilt is True and told.exit_code == 0
    assert [f["number"] for f in told.frames] == list(range(18, 27))
    assert sum(f["weight"] for f in told.frames) == pytest.approx(1)
    text = str(told)
    assert (
        "every byte is equal" in text
        and "target 22" in text
        and str(tmp_path / "src" / "clip1") in told.to_json()
    )
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 1600 and sheet.shape[0] > 400 and sheet.std() > 10


def test_a_tile_is_rebuilt_too(tmp_path, data):
    run(tmp_path / "src", tmp_path / "tiles", tile=32)
    assert explain(tmp_path / "tiles", "clip0_000009_09_t0001").rebuilt is True


def test_a_sample_that_was_tampered_with_differs(data):
    other = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    key = explain(data, "clip0_000000_09").key
    shard = next(t for t in data.glob("*.tar") if key.encode() in t.read_bytes())
    rewrite(shard, lambda ms: [(n, other if n.endswith("blur.png") else d) for n, d in ms])
    told = explain(data, key)
    assert (
        told.rebuilt is False
        and told.exit_code == 1
        and "differs in blur.png" in str(told)
        and "largest difference" in str(told)
    )


def test_the_source_may_have_moved(data, tmp_path):
    shutil.move(tmp_path / "src", tmp_path / "archive")
    lost = explain(data, "clip0_000000_09")
    assert lost.rebuilt is None and lost.exit_code == 1 and "--src" in lost.note
    (tmp_path / "archive" / "clip0").rename(tmp_path / "archive" / "renamed")
    told = explain(data, "clip0_000000_09", src=[str(tmp_path / "archive")])
    assert told.rebuilt is True and told.source == str(tmp_path / "archive" / "renamed"), (
        "the bytes decide, not the name"
    )


def test_a_source_with_other_bytes_is_not_taken(data, tmp_path):
    (tmp_path / "src" / "clip0" / "000001.png").write_bytes(b"x")
    told = explain(data, "clip0_000000_09")
    assert told.rebuilt is None and "not those the sample was made from" in told.note


def test_an_unknown_key_shows_what_keys_look_like(data, tmp_path):
    with pytest.raises(OutputError, match=r"no sample nope; keys look like clip\d_0000") as e:
        explain(data, "nope")
    assert e.value.exit_code == 2
    with pytest.raises(OutputError, match="no such folder"):
        explain(tmp_path / "none", "k")


def meta(n, **exposure):
    base = {
        "interp": "dis",
        "duty": (n - 1) / n,
        "profile": "box",
        "readout_ms": 0.0,
        "window": n,
        "stride": n,
    }
    return {"source": {"first": 0, "last": n - 1, "fps": 240.0}, "exposure": base | exposure}


def test_weights_of_known_exposures():
    assert frame_weights(meta(4, interp="none")) == pytest.approx([0.25] * 4)
    assert frame_weights(meta(5)) == pytest.approx([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], abs=1e-4)
    half = frame_weights(meta(5, duty=2 / 5))  # exposes from 1 to 3
    assert half == pytest.approx([0, 1 / 4, 1 / 2, 1 / 4, 0], abs=1e-4)
    stated = frame_weights(
        meta(5, duty=2.5 / 5), source_duty=0.5
    )  # the same: half a frame is the source's own
    assert stated == pytest.approx(half, abs=1e-4)
    triangle = frame_weights(meta(5), np.array([0, 1, 0]))  # sums of t * tent over each side, by hand
    assert triangle == pytest.approx([1 / 24, 1 / 4, 5 / 12, 1 / 4, 1 / 24], abs=1e-3)


def test_json_is_json(data):
    d = json.loads(explain(data, "clip0_000000_09").to_json())
    assert d["rebuilt"] is True and len(d["frames"]) == 9 and d["meta"]["schema"] == 1
