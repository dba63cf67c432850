"""A shard made in pieces is, byte for byte, the one that a single writer makes; what is torn is made again."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest

from blursynth.run.folder import OutputError
from blursynth.run.make import make
from blursynth.run.outcome import Outcome
from blursynth.run.task import make_shard
from blursynth.shards.pieces import join_pieces, pieces_folder, sweep_pieces
from blursynth.shards.shard import ShardError, ShardWriter, read_shard, read_sidecar
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder

FACTS = {"recipe_sha256": "r", "plan_sha256": "p"}


def facts(samples, **rejected):
    counts = {"written": samples, "rejected": dict(rejected)}
    return FACTS | {"counts": counts | {"clips": {"a": counts}}, "sources": {"a": "0"}, "errors": []}


def write(folder, name, keys, piece=True, **rejected):
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, name) as w:
        for key in keys:
            w.add(key, {"txt": key.encode() * 700})
        w.commit(facts(len(keys), **rejected) | ({"members": w.end} if piece else {}))


@pytest.mark.parametrize("cut", [(3,), (1, 2), (0, 3), (1, 0, 2), (1, 1, 1), (0, 0)], ids=str)
def test_the_joined_shard_is_the_bytes_of_one_writer(tmp_path, cut):
    names = [f"k{i}" for i in range(sum(cut))]
    write(tmp_path / "one", "train-000000", names, piece=False, cut=len(cut))
    rest = list(names)
    for n, size in enumerate(cut):
        write(pieces_folder(tmp_path), f"train-000000.{n:04d}", [rest.pop(0) for _ in range(size)], cut=1)
    side = join_pieces(tmp_path, "train-000000", len(cut))
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    assert side == read_sidecar(tmp_path / "one" / "train-000000.json")
    assert (tmp_path / "train-000000.tar").exists() == bool(names)
    if names:
        assert [s["__key__"] for s in read_shard(tmp_path / "train-000000.tar")] == names
    sweep_pieces(tmp_path)
    assert not pieces_folder(tmp_path).exists()


@pytest.mark.parametrize("damage", ["tar gone", "tar short", "sidecar gone", "sidecar torn"])
def test_a_torn_piece_is_no_part_of_a_shard(tmp_path, damage):
    folder = pieces_folder(tmp_path)
    for n in range(2):
        write(folder, f"train-000000.{n:04d}", [f"k{n}"])
    tar, side = folder / "train-000000.0001.tar", folder / "train-000000.0001.json"
    if damage.startswith("tar"):
        tar.write_bytes(tar.read_bytes()[:-512]) if damage == "tar short" else tar.unlink()
    else:
        side.write_bytes(side.read_bytes()[:20]) if damage == "sidecar torn" else side.unlink()
    with pytest.raises(ShardError, match=r"train-000000\.0001\.tar"):
        join_pieces(tmp_path, "train-000000", 2)
    assert {p.name for p in folder.iterdir()} == {"train-000000.0000.tar", "train-000000.0000.json"}
    assert not list(tmp_path.glob("train-*"))


def test_sweeping_leaves_pieces_of_this_plan_that_are_wanted(tmp_path):
    folder = pieces_folder(tmp_path)
    for shard in ("train-000000", "train-000001"):
        write(folder, f"{shard}.0000", ["k"])
    (folder / "train-000000.0001.tar").write_bytes(b"no sidecar")
    (folder / "train-000000.0000.tar.0123456789ab.part").write_bytes(b"half")
    sweep_pieces(tmp_path)
    assert len(list(folder.iterdir())) == 5, "only what is half-written"
    sweep_pieces(tmp_path, "p", {"train-000000"})
    assert {p.name for p in folder.iterdir()} == {"train-000000.0000.tar", "train-000000.0000.json"}
    sweep_pieces(tmp_path, "another plan", {"train-000000"})
    assert not folder.exists()


@pytest.fixture
def src(tmp_path, monkeypatch):
    monkeypatch.setattr("blursynth.run.packing.PIECES_AT_LEAST", 1000)  # a window a piece
    for i in range(3):
        frames_folder(tmp_path / "src" / f"clip{i}", 60, seed=i)
    return tmp_path / "src"


def run(src, out, task=make_fakes.mean_task, **options):
    return make(src, out, task=task, **{"workers": 1, "interp": "none", "quiet": True, **options})


def digests(out):
    skip = {"run.jsonl", ".blursynth"}
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(out).iterdir() if p.name not in skip
    }


def test_a_small_set_is_one_shard_a_split_for_any_number_of_workers(src, tmp_path, monkeypatch):
    a, b = run(src, tmp_path / "a"), run(src, tmp_path / "b", workers=2)
    assert a.samples == b.samples == a.made == b.made == 18
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert {p.name for p in (tmp_path / "a").glob("*.tar")} == {"train-000000.tar", "val-000000.tar"}
    rows = [json.loads(line) for line in (tmp_path / "b" / "run.jsonl").read_text().splitlines()]
    assert sorted(r["samples"] for r in rows if r["event"] == "shard") == [6, 12]
    monkeypatch.setattr("blursynth.run.plan.piece_windows", lambda *_: 1000)
    run(src, tmp_path / "whole")
    assert digests(tmp_path / "a") == digests(tmp_path / "whole"), "as one worker that knows no pieces"
    assert not pieces_folder(tmp_path / "a").exists()


def test_a_stopped_run_goes_on_from_its_finished_pieces(src, tmp_path):
    run(src, tmp_path / "whole")
    made = []

    def stop_after_five(task):
        if len(made) == 5:
            return Outcome(task.shard, "stop", "no space left")
        made.append(task.name)
        return make_fakes.mean_task(task)

    first = run(src, tmp_path / "a", task=stop_after_five)
    assert first.stopped and first.samples == 0 and not list((tmp_path / "a").glob("train-*"))
    assert len(list(pieces_folder(tmp_path / "a").glob("*.tar"))) == 5
    second = run(src, tmp_path / "a")
    assert second.samples == 18 and second.made == 13, "five were there"
    assert digests(tmp_path / "a") == digests(tmp_path / "whole")


def test_a_failed_piece_fails_its_shard_and_only_it_is_made_again(src, tmp_path):
    run(src, tmp_path / "whole")

    def one_fails(task):
        if (task.shard, task.piece) == ("train-000000", 3):
            return Outcome(task.shard, "failed", "the source is gone")
        return make_fakes.mean_task(task)

    first = run(src, tmp_path / "a", task=one_fails)
    assert (
        first.failed == {"train-000000": "the source is gone"} and first.samples == 6 and first.exit_code == 1
    )
    assert run(src, tmp_path / "a", task=None).failed == first.failed
    again = run(src, tmp_path / "a", retry_failed=True)
    assert (again.exit_code, again.samples, again.made) == (0, 18, 1)
    assert digests(tmp_path / "a") == digests(tmp_path / "whole")


def test_another_recipe_or_overwrite_leaves_no_piece_of_the_old(src, tmp_path):
    def never_whole(task):
        return Outcome(task.shard, "stop", "disk") if task.piece == 4 else make_fakes.mean_task(task)

    run(src, tmp_path / "a", task=never_whole)
    assert pieces_folder(tmp_path / "a").exists()
    run(src, tmp_path / "a", seed=1, overwrite=True)
    run(src, tmp_path / "b", seed=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    run(src, tmp_path / "c", task=never_whole)
    run(src, tmp_path / "c", seed=1)  # no shard was finished: nothing refuses the new recipe
    assert digests(tmp_path / "c") == digests(tmp_path / "b")


def test_failed_samples_of_a_piece_are_tried_again_with_its_shard(src, tmp_path):
    run(src, tmp_path / "whole")

    def faulty_then_stop(task):
        if task.shard.startswith("val"):
            return Outcome(task.shard, "failed", "later")
        return make_shard(task, make_fakes.FaultySynthesizer)

    assert run(src, tmp_path / "a", task=faulty_then_stop).errors
    again = run(src, tmp_path / "a", retry_failed=True)
    assert again.exit_code == 0 and digests(tmp_path / "a") == digests(tmp_path / "whole")


def test_a_disk_that_fills_up_while_a_shard_is_joined_costs_no_sample(src, tmp_path, monkeypatch):
    run(src, tmp_path / "whole")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as m,
        pytest.raises(OutputError, match=r"No space left.*the same command goes on"),
    ):
        m.setattr(ShardWriter, "append", full)
        run(src, tmp_path / "a")
    assert not list((tmp_path / "a").glob("*-0*")) and not list((tmp_path / "a").glob("*.part"))
    again = run(src, tmp_path / "a")
    assert again.samples == 18 and again.made < 18
    assert digests(tmp_path / "a") == digests(tmp_path / "whole")
