"""Shards on the Hugging Face Hub, through its own client, against a stand-in of the Hub on loopback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from blursynth.checks.verify import verify
from blursynth.cli.main import main
from blursynth.run.folder import OutputError
from blursynth.run.make import make
from blursynth.shards.store import Store, StoreError
from deblur_train.data.index import index_split
from tests.blursynth.run.test_make import digests
from tests.helpers import make_fakes
from tests.helpers.fake_hub import Hub, running
from tests.helpers.make_fakes import frames_folder

pytest.importorskip("fsspec")
hub_client = pytest.importorskip("huggingface_hub", reason="the hf extra is not installed")
URL = "hf://datasets/me/pairs/data"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    with running(Hub("me/pairs", token="hf_right")) as hub:
        for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
            old = getattr(constants, name)
            monkeypatch.setattr(constants, name, old.replace("https://huggingface.co", hub.url))
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        monkeypatch.setenv("BLURSYNTH_STAGING", str(tmp_path / "staging"))
        monkeypatch.setenv("DEBLUR_TRAIN_CACHE", str(tmp_path / "cache"))
        hub_client.HfFileSystem.clear_instance_cache()
        yield hub
        hub_client.HfFileSystem.clear_instance_cache()


@pytest.fixture
def src(tmp_path):
    for i in range(2):
        frames_folder(tmp_path / "src" / f"clip{i}", 20, seed=i)
    return tmp_path / "src"


def run(src, out):
    options = {"interp": "none", "fps": 240, "shard_samples": 1, "workers": 1, "quiet": True}
    return make(src, str(out), task=make_fakes.mean_task, **options)


def test_a_data_set_goes_up_is_found_finished_verified_and_trained_on(hub, src, tmp_path):
    summary = run(src, URL)
    run(src, tmp_path / "local")
    assert summary.exit_code == 0 and summary.made == 4
    there = {n.removeprefix("data/"): d for n, d in hub.files.items()}
    for name, digest in digests(tmp_path / "local").items():
        assert there[name] == (tmp_path / "local" / name).read_bytes(), digest
    before = dict(hub.files)
    assert run(src, URL).made == 0, "the same command finds all finished"
    assert {n: d for n, d in hub.files.items() if n.endswith((".tar", "dataset.json"))} == {
        n: d for n, d in before.items() if n.endswith((".tar", "dataset.json"))
    }
    assert not verify(URL).problems
    index, local = index_split(URL, "train"), index_split(tmp_path / "local", "train")
    assert index.samples == local.samples and not index.faults
    assert not any(s.startswith("data/") and s.endswith(".part") for s in hub.files)


def test_a_shard_that_is_gone_is_made_again(hub, src):
    run(src, URL)
    before = dict(hub.files)
    del hub.files["data/train-000001.json"]
    assert run(src, URL).made == 1
    assert {n: d for n, d in hub.files.items() if n.endswith(".tar")} == {
        n: d for n, d in before.items() if n.endswith(".tar")
    }


def test_what_is_wrong_is_told_in_one_line(hub, src, monkeypatch):
    with pytest.raises(StoreError, match="hf://datasets/USER/NAME"):
        Store("hf://datasets/me")
    with pytest.raises(StoreError, match="hf://datasets/USER/NAME"):
        Store("hf://me/pairs")
    with pytest.raises(OutputError, match=r"no data set me/other .*create it first"):
        run(src, "hf://datasets/me/other")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    hub_client.HfFileSystem.clear_instance_cache()
    with pytest.raises(OutputError, match=r"not allowed \(status 401\).*HF_TOKEN") as e:
        run(src, URL)
    assert "\n" not in str(e.value) and not hub.files
    done = CliRunner().invoke(main, ["inspect", URL])
    assert done.exit_code == 2 and "hf download --repo-type dataset me/pairs" in done.output


def test_objects_come_back_as_they_went(hub, tmp_path):
    store = Store(URL)
    store.check()
    assert store.sizes() == {}
    (tmp_path / "a.tar").write_bytes(bytes(range(256)) * 400)
    store.upload(tmp_path / "a.tar", "a.tar")
    store.write("a.json", b"{}")
    store.write("a.json", b"{1}")
    assert store.sizes() == {"a.tar": 102400, "a.json": 3} and store.read(["a.json", "none"]) == {
        "a.json": b"{1}"
    }
    store.download("a.tar", tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()
    store.remove("a.json")
    store.remove("a.json")
    assert store.sizes() == {"a.tar": 102400}
