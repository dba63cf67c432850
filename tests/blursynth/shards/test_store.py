"""Shards in a bucket, against a real S3 API server: moto's, a process of its own on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from blursynth.checks.explain import explain
from blursynth.checks.verify import verify
from blursynth.cli.main import main
from blursynth.common.extras import install_extra
from blursynth.recipe import RecipeError
from blursynth.run.folder import OutputError
from blursynth.run.make import make
from blursynth.shards.store import Store, StoreError, staging_folder
from deblur_train.config import TrainConfig
from deblur_train.data.index import DataError, index_split
from deblur_train.data.remote import cache_folder, fetch_shards
from deblur_train.training.fit import fit
from deblur_train.training.step import Learner
from tests.blursynth.run.test_make import digests
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder
from tests.helpers.places import ROOT

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, "moto's server ended"
            time.sleep(0.1)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A machine with credentials and nothing staged or cached yet."""
    for key in [k for k in os.environ if k.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv("AWS_" + key, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for key in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv("AWS_" + key, str(tmp_path / "none"))
    monkeypatch.setenv("BLURSYNTH_STAGING", str(tmp_path / "staging"))
    monkeypatch.setenv("DEBLUR_TRAIN_CACHE", str(tmp_path / "cache"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    return monkeypatch


@pytest.fixture
def bucket(server, environment, tmp_path):
    """A bucket of its own for each test."""
    environment.setenv("AWS_ENDPOINT_URL", server)
    name = "b" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def src(tmp_path):
    for i in range(2):
        frames_folder(tmp_path / "src" / f"clip{i}", 40, seed=i)
    return tmp_path / "src"


def run(src, out, task=make_fakes.mean_task, **options):
    options = {"workers": 1, "interp": "none", "quiet": True, "shard_samples": 1, **options}
    return make(src, out, options.pop("recipe", None), task=task, **options)


def objects(url):
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {
        f["name"].rpartition("/")[2]: fs.cat_file(f["name"])
        for f in fs.ls(root, detail=True)
        if f["type"] == "file"
    }


def remote_digests(url):
    return {n: hashlib.sha256(b).hexdigest() for n, b in objects(url).items() if n != "run.jsonl"}


def finished_are_whole(url):
    """Whatever has a sidecar has its tar, byte for byte. Returns how many there are."""
    there = objects(url)
    sides = {
        n: json.loads(b) for n, b in there.items() if n.endswith(".json") and n[:5] in ("train", "val-0")
    }
    for name, side in sides.items():
        assert hashlib.sha256(there[name[:-5] + ".tar"]).hexdigest() == side["sha256"], name
    return len(sides)


def fails(code, says, *args):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == code and len(lines) == 1 and says in lines[0], result.output
    return lines[0]


def test_a_bucket_holds_the_bytes_a_folder_would(src, bucket, tmp_path):
    here, there = run(src, tmp_path / "here"), run(src, f"{bucket}/data", workers=2)
    assert there.samples == here.samples == 8 and there.exit_code == 0
    assert remote_digests(f"{bucket}/data") == digests(tmp_path / "here")
    staged = {p.suffix for p in staging_folder(f"{bucket}/data").iterdir()}
    assert ".tar" not in staged, "what is delivered is not kept"


def test_a_curve_goes_to_the_bucket_and_to_who_trains_from_there(src, bucket, tmp_path):
    np.save(tmp_path / "curve.npy", np.linspace(0, 1, 256) ** 2.2)
    here, url = tmp_path / "here", f"{bucket}/data"
    for out in (here, url):
        make(src, out, crf=str(tmp_path / "curve.npy"), interp="none", max_samples=2, workers=1, quiet=True)
    assert remote_digests(url) == digests(here)
    (tmp_path / "curve.npy").unlink()
    (curve,) = (p.name for p in here.glob("crf-*.npy"))
    samples = index_split(url, "train").samples
    assert [s.crf for s in samples] == [str(cache_folder(url) / curve)] * len(samples) and samples
    assert Path(samples[0].crf).read_bytes() == (here / curve).read_bytes()
    assert explain(url, samples[0].key, [str(src)]).rebuilt
    make(src, url, recipe=str(here / "recipe.toml"), overwrite=True, workers=1, quiet=True)
    assert remote_digests(url) == digests(here)


def test_the_bucket_alone_says_what_is_done(src, bucket, tmp_path):
    url = f"{bucket}/data"
    run(src, url)
    whole = remote_digests(url)
    shutil.rmtree(tmp_path / "staging")  # another machine
    again = run(src, url, task=None)
    assert (again.samples, again.made) == (8, 0) and remote_digests(url) == whole
    store = Store(url)
    store.remove("train-000000.json")
    store.write("train-000001.tar", b"short")
    store.write("train-000002.json", b"{ torn")
    assert run(src, url).made == 3
    assert remote_digests(url) == whole


def test_another_recipe_is_refused_and_overwrite_removes_only_its_own(src, bucket, tmp_path):
    url = f"{bucket}/data"
    run(src, url)
    before = remote_digests(url)
    shutil.rmtree(tmp_path / "staging")
    with pytest.raises(OutputError, match="seed: 0 there, 1 now") as e:
        run(src, url, seed=1)
    assert e.value.exit_code == 2 and url in str(e.value) and remote_digests(url) == before
    store = Store(url)
    store.write("README.md", b"mine")
    store.write("notes.json", b"{}")
    store.write("deep/train-000000.tar", b"another's")
    run(src, url, seed=1, overwrite=True)
    run(src, tmp_path / "here", seed=1)
    after = remote_digests(url)
    assert after.pop("notes.json") == hashlib.sha256(b"{}").hexdigest()
    assert after.pop("README.md") == hashlib.sha256(b"mine").hexdigest()
    want = digests(tmp_path / "here")
    want.pop("README.md")
    assert after == want and objects(f"{url}/deep")["train-000000.tar"] == b"another's"


def test_shards_of_others_are_left_alone(src, bucket):
    url = f"{bucket}/data"
    Store(url).write("train-000000.tar", b"another's")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(OutputError, match="did not make"):
            run(src, url, **options)
    assert objects(url) == {"train-000000.tar": b"another's"}


@pytest.mark.parametrize("fatal", ["upload", "sha256", "write"])
def test_ended_within_an_upload_nothing_half_is_finished_and_nothing_is_made_twice(
    src, bucket, monkeypatch, fatal, tmp_path
):
    url, calls = f"{bucket}/data", []

    def die(self, *args):
        calls.append(args)
        if "000002" in str(args):
            raise KeyboardInterrupt
        return real(self, *args)

    real = getattr(Store, fatal)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Store, fatal, die)
        run(src, url)
    assert finished_are_whole(url) == 2 and "train-000002.json" not in objects(url)
    made = run(src, url).made
    assert made == 8 - 3, "the third was staged, and only had to be delivered"
    run(src, tmp_path / "here")
    assert remote_digests(url) == digests(tmp_path / "here")


def test_a_tar_that_arrives_damaged_gets_no_sidecar(src, bucket, monkeypatch):
    url, real = f"{bucket}/data", Store.upload

    def damage(self, path, name):
        real(self, path, name)
        if name == "train-000001.tar":
            self.fs.pipe_file(self._at(name), b"x" * path.stat().st_size)

    with (
        monkeypatch.context() as m,
        pytest.raises(OutputError, match=r"train-000001\.tar: arrived with another sha256") as e,
    ):
        m.setattr(Store, "upload", damage)
        run(src, url)
    assert e.value.exit_code == 1 and finished_are_whole(url) == 1
    assert "train-000001.tar" not in objects(url)
    assert run(src, url).exit_code == 0 and finished_are_whole(url) == 8


def test_failed_shards_are_told_in_the_bucket_and_retried(src, bucket):
    url = f"{bucket}/data"
    assert run(src, url, task=make_fakes.faulty_task).exit_code == 1
    assert run(src, url, retry_failed=True).exit_code == 0
    assert finished_are_whole(url) == 8 and "failed.json" not in objects(url)


def test_verify_and_explain_read_a_bucket_and_leave_nothing_here(src, bucket, tmp_path, monkeypatch):
    url, key = f"{bucket}/data", "clip1_000018_09"
    run(src, url)
    monkeypatch.setattr("blursynth.checks.explain.default_synthesizer", make_fakes.MeanSynthesizer)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    report = verify(url)
    assert (report.samples, report.problems, report.data) == (8, [], url)
    told = explain(url, key)
    assert told.rebuilt is True and told.source == str(src / "clip1")
    store = Store(url)
    tar = store.read(["train-000001.tar"])["train-000001.tar"]
    store.write("train-000001.tar", tar[:700] + b"?" + tar[701:])
    store.remove("dataset.json")
    found = verify(url).problems
    assert [
        f"{url}/train-000001.tar: its sha256" in found[0],
        f"{url}/dataset.json: is not there" in found[-1],
    ]
    assert str(tmp_path) not in " ".join(found)
    store.write("recipe.toml", b"x = [")
    with pytest.raises(RecipeError, match=f"{url}/recipe.toml"):
        explain(url, key)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_killed_at_seven_moments_the_bucket_ends_the_same(src, bucket, tmp_path):
    url = f"{bucket}/data"
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.helpers import make_fakes
from blursynth.run.make import make
make({str(src)!r}, {url!r}, interp="none", shard_samples=1, workers=1, quiet=True, task=make_fakes.held_task)
"""
    rng, store, seen = random.Random(4), Store(url), []
    held = os.environ | {"HELD_SHARD": "val-000003"}  # never done, so that no run ends before it is killed
    for n in range(1, 8):
        process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, env=held)
        while sum(name.endswith(".tar") for name in store.sizes()) < n:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.08))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(finished_are_whole(url))
    assert seen == sorted(seen) and seen[-1] < 8
    assert run(src, url).exit_code == 0
    run(src, tmp_path / "here")
    assert remote_digests(url) == digests(tmp_path / "here")


def test_mistakes_are_one_line(src, bucket, environment, tmp_path):
    args = ["make", "--src", src, "--interp", "none", "--workers", 1, "--out"]
    assert "create it first" in fails(1, "no bucket 'nowhere-at-all'", *args, "s3://nowhere-at-all/data")
    fails(1, "names no bucket", *args, "s3://")
    fails(1, "Protocol not known: what", *args, "what://x/y")
    fails(2, "copy them first (aws s3 sync", "inspect", f"{bucket}/data")
    for command, key in (("verify", []), ("explain", ["k"])):
        fails(2, "holds no shards", command, f"{bucket}/data", *key)
        fails(1, "no bucket 'nowhere-at-all'", command, "s3://nowhere-at-all/data", *key)
    with pytest.raises(DataError, match="no such bucket or folder"):
        index_split(f"{bucket}/data", "train")
    with pytest.raises(DataError, match="names no bucket"):
        index_split("s3://", "train")


def test_without_credentials_or_server_it_is_one_line(src, environment):
    args = ["make", "--src", src, "--interp", "none", "--workers", 1, "--out", "s3://b/data"]
    environment.setenv("AWS_MAX_ATTEMPTS", "1")
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "AWS_ENDPOINT_URL" in fails(1, "cannot be reached", *args)
    environment.delenv("AWS_ACCESS_KEY_ID")
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "AWS_PROFILE" in fails(1, "no credentials", *args)


def test_without_the_extra_the_package_is_named(src, tmp_path):
    program = """
import sys
sys.modules["s3fs"] = None  # fsspec itself comes with torch
from deblur_train.data.index import DataError, index_split
try:
    index_split("s3://b/data", "train")
except DataError as e:
    print("trainer", e)
from blursynth.cli.main import main
from blursynth.checks.explain import explain
main(["make", "--src", sys.argv[1], "--out", "s3://b/data", "--interp", "none"])
"""
    done = subprocess.run([sys.executable, "-c", program, str(src)], capture_output=True, text=True)
    assert done.returncode == 1 and install_extra("s3") in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and install_extra("s3") in done.stdout


def test_other_urls(src, environment, tmp_path):
    run(src, tmp_path / "here")
    run(src, f"file://{tmp_path}/there")
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    run(src, "memory://bucket/data")
    assert remote_digests("memory://bucket/data") == digests(tmp_path / "here")
    assert len(index_split("memory://bucket/data", "train").samples) == 4
    with pytest.raises(StoreError, match="Protocol not known"):
        Store("what://x/y")


def test_a_dry_run_refuses_the_bucket_that_the_run_refuses(src, environment, tmp_path):
    """Only the staging folder was looked at, which holds nothing of what is in the bucket, or what was once there."""
    url, alien = f"memory://dry/{tmp_path.name}", f"memory://alien/{tmp_path.name}"
    run(src, url)
    before = remote_digests(url)
    fs, root = fsspec.core.url_to_fs(alien)
    fs.pipe(f"{root}/train-000000.tar", b"x" * 1024)
    for out, why, options in (
        (url, "holds shards of another recipe", {"seed": 7}),
        (alien, "did not make; give another", {}),
        (alien, "overwrite removes only its own", {"overwrite": True}),
    ):
        told = []
        for dry in (True, False):
            with pytest.raises(OutputError, match=why) as e:
                run(src, out, dry_run=dry, **options)
            told.append(str(e.value))
        assert told[0] == told[1]
    run(src, url, dry_run=True)
    run(src, url, dry_run=True, overwrite=True, seed=7)
    assert remote_digests(url) == before
    fs.rm(root, recursive=True)
    assert run(src, alien, dry_run=True).planned


def test_a_store_that_does_not_tell_sizes_is_named(monkeypatch):
    """fsspec lists a web server's folder so: what came of it was a TypeError."""
    store = Store("memory://web/data")
    listed = [{"name": "web/data/train-000000.tar", "size": None, "type": "file"}]
    monkeypatch.setattr(store.fs, "ls", lambda *_, **__: listed)
    with pytest.raises(StoreError, match=r"memory://web/data: lists files without their sizes; copy them"):
        store.sizes()


def test_a_shard_that_is_made_in_pieces_goes_up_whole_also_after_a_stop(src, environment, tmp_path):
    url, made = "memory://pieces/" + tmp_path.name, []

    def stops(task):
        made.append(task.name)
        return make_fakes.full_disk_task(task) if len(made) == 4 else make_fakes.mean_task(task)

    run(src, tmp_path / "here", shard_samples=None)
    assert run(src, url, task=stops, shard_samples=None).stopped and not any(
        "train-" in n for n in objects(url)
    )
    again = run(src, url, shard_samples=None)
    assert again.samples == 8 and again.made == 5, "three were staged"
    assert remote_digests(url) == digests(tmp_path / "here")
    assert not [p for p in (tmp_path / "staging").rglob("*") if "train-0" in p.name or "val-0" in p.name]
    assert verify(url).problems == []


def test_the_trainer_reads_a_bucket_as_it_reads_the_folder(src, bucket, tmp_path, capsys):
    url = f"{bucket}/data"
    run(src, tmp_path / "here")
    run(src, url)
    Store(url).remove("train-000003.json")
    index, local = index_split(url, "train"), index_split(tmp_path / "here", "train")
    assert [p.name for p in index.paths] == [p.name for p in local.paths][:3]
    assert index.samples == local.samples[: len(index.samples)] and "not finished" in index.report()[0]
    assert "fetching 3 train shards" in capsys.readouterr().err
    fetch_shards(url, "train")
    assert "fetching" not in capsys.readouterr().err, "what is cached and unchanged stays"
    Store(url).remove("train-000002.json")
    assert len(fetch_shards(url, "train")[0]) == 2
    cached = sum(p.suffix == ".tar" for p in cache_folder(url).iterdir())
    assert cached == 2, "the cache holds what the URL holds"
    store = Store(url)
    tar = store.read(["train-000001.tar"])["train-000001.tar"]
    shutil.rmtree(tmp_path / "cache")
    store.write("train-000001.tar", tar[:2000] + b"?" + tar[2001:])
    with pytest.raises(DataError, match=r"train-000001\.tar: size or sha256 is not the one in its sidecar"):
        index_split(url, "train")


@pytest.mark.slow
def test_fit_from_a_bucket_is_fit_from_the_folder_and_resumes_to_the_bit(src, bucket, tmp_path, monkeypatch):
    from tests.deblur_train.training.test_fit import TINY, same_bits

    url = f"{bucket}/data"
    run(src, tmp_path / "here")
    run(src, url)
    quiet = Console(quiet=True)

    def config(name: str, shards: str) -> TrainConfig:
        return TrainConfig.model_validate(TINY | {"shards": shards, "out": str(tmp_path / name), "steps": 4})

    def crash(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("power cut")
        return step(self, *args)

    step, calls = Learner.step, []
    fit(config("local", str(tmp_path / "here")), console=quiet)
    with monkeypatch.context() as m, pytest.raises(RuntimeError, match="power cut"):
        m.setattr(Learner, "step", crash)
        fit(config("remote", url), console=quiet)
    shutil.rmtree(tmp_path / "cache")  # resumed on another machine
    fit(config("remote", url), resume=True, console=quiet)
    for name in ("last", "best"):
        file = f"{name}.safetensors"
        assert same_bits(tmp_path / "local" / file, tmp_path / "remote" / file)
