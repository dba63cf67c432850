"""``make`` as a function: resume, refuse, retry, the same bytes for any workers. With a stand-in synthesiser."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import blursynth
from blursynth.checks.audit import audit_source
from blursynth.checks.explain import explain
from blursynth.checks.verify import verify
from blursynth.common.atomic import part_name
from blursynth.recipe import Recipe, RecipeError
from blursynth.run.folder import Output, OutputError
from blursynth.run.make import make
from blursynth.run.report import Summary
from blursynth.run.task import make_shard
from blursynth.shards.shard import read_shard, read_sidecar
from blursynth.sources.find import Reject, SourceError
from blursynth.video.verdict import known_undecoded, low_rate
from tests.helpers import make_fakes
from tests.helpers.films import moving, write_video
from tests.helpers.make_fakes import frames_folder

STATE = {"run.jsonl", ".blursynth"}


@pytest.fixture
def src(tmp_path):
    for i in range(3):
        frames_folder(tmp_path / "src" / f"clip{i}", 40, seed=i)
    return tmp_path / "src"


def run(src, out, task=make_fakes.mean_task, **options):
    options = {"workers": 1, "interp": "none", "quiet": True, "shard_samples": 1, **options}
    return make(src, out, options.pop("recipe", None), task=task, **options)


def digests(out):
    """Every byte that is data: all but the run log and this machine's state."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(out).iterdir() if p.name not in STATE
    }


def keys(out):
    return [s["__key__"] for t in sorted(Path(out).glob("*.tar")) for s in read_shard(t)]


def test_the_same_bytes_for_one_and_two_workers(src, tmp_path):
    a, b = run(src, tmp_path / "a", workers=1), run(src, tmp_path / "b", workers=2)
    assert a.samples == b.samples == 12 and a.exit_code == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(keys(tmp_path / "a")) == len(set(keys(tmp_path / "a"))) == 12


def test_the_source_may_lie_anywhere(src, tmp_path, monkeypatch):
    run(src, tmp_path / "a")
    shutil.copytree(src, tmp_path / "elsewhere" / "src")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run("src", tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b"), "no absolute path, time or host in the data"


@pytest.mark.parametrize("where", ["option", "recipe"])
@pytest.mark.parametrize("path", ["~/src", "~/sr*", "{tmp}/src/clip?", "file://{tmp}/src"])
def test_a_source_below_home_or_of_a_pattern_is_found_by_explain_too(src, tmp_path, monkeypatch, path, where):
    monkeypatch.setenv("HOME", str(tmp_path))
    path, out = path.format(tmp=tmp_path), tmp_path / "d"
    (tmp_path / "r.toml").write_text(f"src = ['{path}']\n")
    run(
        *((path, out) if where == "option" else (None, out)),
        recipe=None if where == "option" else tmp_path / "r.toml",
    )
    logged = json.loads((out / "run.jsonl").read_text().splitlines()[0])["src"]
    assert logged and all(Path(p).is_absolute() and Path(p).exists() for p in logged)
    assert explain(out, keys(out)[0]).source is not None
    assert len(audit_source([path]).clips) == 3


def test_a_source_in_a_bucket_is_refused_as_such(tmp_path):
    for command in (
        lambda: run("s3://bucket/films", tmp_path / "d"),
        lambda: audit_source(["s3://bucket/films"]),
    ):
        with pytest.raises(SourceError, match=r"^s3://bucket/films: sources are read from this machine only"):
            command()


@pytest.mark.parametrize(
    ("reason", "says"), [("soft", "sharper photos"), ("blur_px", "--blur-px"), ("cut", "audit")]
)
def test_what_a_run_advises_suits_the_reason(reason, says):
    summary = Summary("d", planned_splits={"train": 2}, rejects=Counter({reason: 2}))
    assert any("no train sample was kept" in line and says in line for line in summary.lines())
    summary.warnings.append("a")
    assert summary.facts()["warnings"] == ["a"], "--json says all that the lines say"


def test_the_index_agrees_with_the_shards_and_names_no_machine(src, tmp_path):
    run(src, tmp_path / "a")
    index = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert index["complete"] and {k: v["samples"] for k, v in index["splits"].items()} == {
        "train": 8,
        "val": 4,
    }
    for split in index["splits"].values():
        for s in split["shards"]:
            data = (tmp_path / "a" / s["file"]).read_bytes()
            assert (s["bytes"], s["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    timm = json.loads((tmp_path / "a" / "_info.json").read_text())["splits"]
    assert sum(timm["train"]["shard_lengths"]) == timm["train"]["num_samples"] == 8
    assert [s["file"] for s in index["splits"]["train"]["shards"]] == timm["train"]["filenames"]
    for name in digests(tmp_path / "a"):
        assert str(tmp_path).encode() not in (tmp_path / "a" / name).read_bytes(), name


def test_what_was_not_used_is_named_below_its_source_wherever_that_lies(src, tmp_path, monkeypatch):
    """Equal sources give an equal index: no folder of this machine, with a space in its name or without, is in it."""
    (src / "sub").mkdir()
    (src / "sub" / "torn film.mp4").write_bytes(b"nothing")
    (src / "short").mkdir()
    shutil.copy(src / "clip0" / "000000.png", src / "short")
    shutil.copytree(src / "clip0", src / "twin")
    found = []
    for n, home in enumerate(("my films", "elsewhere")):
        shutil.copytree(src, tmp_path / home / "src")
        monkeypatch.chdir(tmp_path / home)
        run("src" if n else tmp_path / home / "src", tmp_path / f"d{n}")
        text = (tmp_path / f"d{n}" / "dataset.json").read_text()
        assert home not in text.split('"not_used"')[1] and str(tmp_path) not in text
        found.append(json.loads(text)["not_used"])
    assert {u["source"] for u in found[0]} == {"sub/torn film.mp4", "short", "twin"}
    assert digests(tmp_path / "d0") == digests(tmp_path / "d1")


def test_what_retry_failed_leaves_unmade_is_said_and_is_no_success(src, tmp_path):
    """Of a run that was killed nothing has failed, and nothing says that all is there either."""
    whole = run(src, tmp_path / "d")
    for name in ("val-000000.json", "train-000002.json"):
        (tmp_path / "d" / name).unlink()
    again = run(src, tmp_path / "d", retry_failed=True)
    assert (again.shards_done, again.exit_code) == (whole.shards - 2, 1) and not again.empty_splits
    assert "2 shards not made yet: run the same command without --retry-failed" in str(again)
    assert run(src, tmp_path / "d").exit_code == 0 and digests(tmp_path / "d")["dataset.json"]


def test_overwrite_with_retry_failed_is_refused_and_removes_nothing(src, tmp_path):
    run(src, tmp_path / "d")
    before = digests(tmp_path / "d")
    with pytest.raises(RecipeError, match="give one of them"):
        run(src, tmp_path / "d", overwrite=True, retry_failed=True)
    assert digests(tmp_path / "d") == before


def test_a_second_run_makes_nothing_and_says_the_same(src, tmp_path):
    first = run(src, tmp_path / "a")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").glob("*.tar")}
    again = run(src, tmp_path / "a", task=None)
    assert (again.samples, again.made, again.splits) == (first.samples, 0, first.splits)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").glob("*.tar")}


@pytest.mark.parametrize(
    "damage", ["tar gone", "tar short", "sidecar gone", "sidecar torn", "part left", "index gone"]
)
def test_what_is_missing_or_torn_is_made_again_and_equal(src, tmp_path, damage):
    out = tmp_path / "a"
    run(src, out)
    whole = digests(out)
    tar, side = out / "train-000001.tar", out / "train-000001.json"
    if damage == "tar gone":
        tar.unlink()
    elif damage == "tar short":
        tar.write_bytes(tar.read_bytes()[:-512])
    elif damage == "sidecar gone":
        side.unlink()
    elif damage == "sidecar torn":
        side.write_bytes(side.read_bytes()[:20])
    elif damage == "part left":
        (out / "train-000001.tar.0123456789ab.part").write_bytes(b"half")
    else:
        (out / "dataset.json").unlink()
    assert digests(out) != whole
    made = run(src, out).made
    assert digests(out) == whole
    assert made == (0 if damage in ("part left", "index gone") else 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"window": 7, "stride": 3}, "stride: unset there, 3 now, window: 9 there, 7 now"),
        ({"recipe": Recipe(interp="none", format="webp")}, "format: png there, webp now"),
    ],
)
def test_another_recipe_over_old_shards_is_refused_by_key(src, tmp_path, options, says):
    run(src, tmp_path / "a")
    before = digests(tmp_path / "a")
    with pytest.raises(OutputError, match=says) as e:
        run(src, tmp_path / "a", **options)
    assert e.value.exit_code == 2 and "--out" in str(e.value) and "--overwrite" in str(e.value)
    assert digests(tmp_path / "a") == before


def test_other_sources_over_old_shards_are_refused_by_name(src, tmp_path):
    run(src, tmp_path / "a")
    (src / "clip1" / "000003.png").write_bytes((src / "clip0" / "000003.png").read_bytes())
    with pytest.raises(OutputError, match="clip1 changed"):
        run(src, tmp_path / "a")
    shutil.rmtree(src / "clip1")
    frames_folder(src / "clip9", 30, seed=9)
    with pytest.raises(OutputError, match="clip9 is new, clip1 is gone"):
        run(src, tmp_path / "a")


def test_another_version_over_old_shards_is_refused(src, tmp_path, monkeypatch):
    run(src, tmp_path / "a")
    monkeypatch.setattr("blursynth.run.folder.__version__", "9.9.9")
    with pytest.raises(OutputError, match=f"made by blursynth {blursynth.__version__}, this is 9.9.9"):
        run(src, tmp_path / "a")


def test_overwrite_removes_our_files_only(src, tmp_path):
    out = tmp_path / "a"
    run(src, out, shard_samples=1)
    mine = {"notes.txt": b"mine", "model.tar": b"mine", "README.md": b"# my own", "labels.json": b"{}"}
    for name, data in mine.items():
        (out / name).write_bytes(data)
    run(src, out, seed=1, shard_samples=4, overwrite=True)
    fresh = run(src, tmp_path / "b", seed=1, shard_samples=4)
    assert fresh.samples == 12
    got, want = digests(out), digests(tmp_path / "b")
    assert {k: v for k, v in got.items() if k not in mine} == {
        k: v for k, v in want.items() if k != "README.md"
    }
    assert all((out / n).read_bytes() == d for n, d in mine.items())


def test_the_folder_of_the_source_is_no_place_for_shards(src, tmp_path, monkeypatch):
    """Beside shards, films would be passed over: the next run would find none."""
    (tmp_path / "link").symlink_to(src)
    monkeypatch.chdir(src)
    before = sorted(src.rglob("*"))
    for out in (src, tmp_path / "link", "."):
        with pytest.raises(OutputError, match="is a source"):
            make(src, out, interp="none", workers=1, quiet=True)
    assert sorted(src.rglob("*")) == before


def test_nor_is_a_folder_of_clips_below_the_source(src, tmp_path):
    """The run ended with 0, and the same command was refused from then on: clips were gone."""
    frames_folder(src / "more" / "clip", 40, seed=9)
    before = sorted(src.rglob("*"))
    for out in (src / "more", src / "more" / "clip", src / "clip0"):
        for dry in (True, False):
            with pytest.raises(OutputError, match="or a part of one"):
                run(src, out, dry_run=dry)
    assert sorted(src.rglob("*")) == before
    (src / "shards").mkdir()
    made = [run(src, src / "shards") for _ in range(2)]  # beside clips there is room
    assert [s.exit_code for s in made] == [0, 0] and made[0].made == made[1].samples > made[1].made


@pytest.mark.parametrize("overwrite", [False, True])
def test_shards_of_someone_else_are_never_touched(src, tmp_path, overwrite):
    out = tmp_path / "a"
    out.mkdir()
    (out / "train-000000.tar").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"did not make"):
        run(src, out, overwrite=overwrite)
    assert (out / "train-000000.tar").read_bytes() == b"precious"


def test_a_vanished_clip_costs_its_shards_and_retry_failed_makes_just_those(src, tmp_path):
    whole = tmp_path / "whole"
    run(src, whole, shard_samples=2)
    out = tmp_path / "a"

    def vanish_then(task):
        if task.shard == "train-000001" and (src / "clip1").exists():
            (src / "clip1").rename(tmp_path / "gone")
        return make_fakes.mean_task(task)

    summary = run(src, out, task=vanish_then, shard_samples=2)
    assert summary.exit_code == 1 and summary.failed and summary.samples < 12
    assert all("clip1" in why for why in summary.failed.values())
    assert not json.loads((out / "dataset.json").read_text())["complete"]
    (tmp_path / "gone").rename(src / "clip1")

    plain = run(src, out, task=None, shard_samples=2)
    assert plain.exit_code == 1 and plain.failed == summary.failed, (
        "a plain run leaves failed shards alone and says so"
    )
    asked = []

    def spy(task):
        asked.append(task.shard)
        return make_fakes.mean_task(task)

    again = run(src, out, task=spy, retry_failed=True, shard_samples=2)
    assert set(asked) == set(summary.failed) and again.exit_code == 0
    assert digests(out) == digests(whole)


def test_retry_failed_says_what_it_does_not_make(src, tmp_path):
    """A run that a full disk ended has shards that never failed: nothing was said of them."""
    out = tmp_path / "a"
    assert "not made yet" not in str(run(src, out))
    for path in out.glob("train-000000.*"):
        path.unlink()
    assert "1 shard not made yet" in str(run(src, out, retry_failed=True))
    assert "not made yet" not in str(run(src, out))


def test_failed_samples_end_with_1_until_retry_failed_makes_them(src, tmp_path):
    out = tmp_path / "a"
    summary = run(src, out, task=make_fakes.faulty_task)
    assert summary.exit_code == 1 and summary.samples == 9 and len(summary.errors) == 3
    assert "clip0" in str(summary) and "RuntimeError: boom" in str(summary)
    assert run(src, out).exit_code == 1, "it is not forgotten"
    fixed = run(src, out, retry_failed=True)
    assert (fixed.exit_code, fixed.samples, fixed.made) == (0, 12, 3)
    run(src, tmp_path / "b")
    assert digests(out) == digests(tmp_path / "b")


@pytest.mark.slow
def test_a_task_that_kills_its_worker_is_left_out_and_named(src, tmp_path):
    out = tmp_path / "a"
    summary = run(src, out, task=make_fakes.poison_task, workers=2)
    assert summary.exit_code == 1 and summary.samples == 11 and list(summary.failed) == ["train-000002"]
    assert json.loads((out / "failed.json").read_text())["failed"]["train-000002"]["status"] == "killed"
    assert run(src, out, retry_failed=True, workers=2).exit_code == 0
    assert not (out / "failed.json").exists()
    run(src, tmp_path / "b")
    assert digests(out) == digests(tmp_path / "b")


def test_a_worker_killed_once_loses_nothing(src, tmp_path):
    summary = run(src, tmp_path / "a", task=make_fakes.once_fatal_task, workers=2)
    assert (tmp_path / "a" / ".died-once").exists()
    assert summary.exit_code == 0 and summary.samples == 12
    (tmp_path / "a" / ".died-once").unlink()
    run(src, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_full_disk_ends_the_run_at_once(src, tmp_path):
    summary = run(src, tmp_path / "a", task=make_fakes.full_disk_task)
    assert (
        summary.exit_code == 1
        and summary.stopped == "no space left"
        and "the same command goes on" in str(summary)
    )
    assert not (tmp_path / "a" / "failed.json").exists(), "a full disk is no fault of the shard"
    assert run(src, tmp_path / "a").exit_code == 0


def test_the_index_that_cannot_be_written_is_one_line(src, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("blursynth.run.make.write_index", full)
    with pytest.raises(OutputError, match="No space left") as e:
        run(src, tmp_path / "a")
    assert e.value.exit_code == 1


def test_a_second_make_on_the_same_folder_is_turned_away(src, tmp_path):
    with (
        Output(tmp_path / "a").lock(),
        pytest.raises(OutputError, match=r"another make is at work there \(process \d+ on") as e,
    ):
        run(src, tmp_path / "a")
    assert e.value.exit_code == 1
    assert run(src, tmp_path / "a").exit_code == 0


def test_copies_are_used_once_and_told(src, tmp_path):
    shutil.copytree(src / "clip0", src / "zcopy")
    summary = run(src, tmp_path / "a")
    assert summary.samples == 12
    assert [(r.reason, r.detail) for r in summary.clip_rejects] == [("copy", "the same bytes as clip0")]
    index = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert [n["reason"] for n in index["not_used"]] == ["copy"]


def test_a_short_clip_is_counted_and_only_short_clips_are_an_error(tmp_path):
    frames_folder(tmp_path / "src" / "good", 40)
    frames_folder(tmp_path / "src" / "short", 5, seed=1)
    summary = run(tmp_path / "src", tmp_path / "a")
    assert summary.exit_code == 0 and summary.clip_rejects == [
        Reject("short", "too short", "5 frames, a window needs 9")
    ]
    with pytest.raises(SourceError, match="5 frames, a window needs 9"):
        run(tmp_path / "src" / "short", tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.tar"))


def test_a_readout_needs_the_rate_of_each_film(tmp_path):
    """Without one it was taken for none, and each sample's JSON gave the readout that was asked for."""
    frames_folder(tmp_path / "src" / "take", 20)
    with pytest.raises(SourceError, match=r"take: its frame rate is not known.*give --fps"):
        run(tmp_path / "src", tmp_path / "a", interp="dis", readout_ms=5)
    for known in ({"fps": 240}, {"fps_unknown": 240}):
        assert (
            run(tmp_path / "src", tmp_path / "a", interp="dis", readout_ms=5, overwrite=True, **known).samples
            == 2
        )


def test_a_readout_that_no_window_holds_is_refused_before_anything_is_made(tmp_path):
    """At 240 fps, 7 frames last 25 ms; with windows of 5 to 9 frames some are too short for 20 ms, not all."""
    frames_folder(tmp_path / "src" / "take", 60)
    more = {"interp": "dis", "fps": 240, "task": make_shard}
    for dry in (True, False):
        with pytest.raises(RecipeError, match=r"readout_ms 25: the longest window lasts 25 ms.*--window"):
            run(tmp_path / "src", tmp_path / "a", readout_ms=25, window="7", dry_run=dry, **more)
        assert not [p for p in (tmp_path / "a").glob("*") if p.name != ".blursynth"]
    assert run(tmp_path / "src", tmp_path / "a", readout_ms=24, window="7", **more).samples
    made = run(tmp_path / "src", tmp_path / "b", readout_ms=20, window="5-9", **more)
    assert made.samples and made.rejects["readout_ms"] and not made.stopped
    assert made.samples + made.rejects.total() == made.planned
    frames = [
        f for s in Path(tmp_path / "b").glob("*.tar") for m in read_shard(s) for f in [json.loads(m["json"])]
    ]
    assert min(f["exposure"]["window"] for f in frames) > 20 * 240 / 1000 + 1


def test_a_dry_run_refuses_the_folder_that_the_run_refuses(src, tmp_path):
    out = tmp_path / "d"
    run(src, out)
    before = digests(out)
    run(src, out, dry_run=True)
    told = []
    for dry in (True, False):
        with pytest.raises(OutputError, match="holds shards of another recipe") as e:
            run(src, out, seed=7, dry_run=dry)
        told.append((str(e.value), e.value.exit_code))
    assert told[0] == told[1] and digests(out) == before
    run(src, out, seed=7, overwrite=True, dry_run=True)
    assert digests(out) == before, "it would be removed, but is not yet"
    (out / "recipe.toml").write_text("mine")
    with pytest.raises(OutputError, match=r"holds a recipe\.toml that blursynth did not write"):
        run(src, out, dry_run=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".blursynth").symlink_to(out)
    for dry in (True, False):
        for path in (out / "recipe.toml", out / "recipe.toml" / "below", tmp_path / "dangling"):
            with pytest.raises(OutputError, match="is a file, not a folder"):
                run(src, path, dry_run=dry)
        with pytest.raises(OutputError, match="is a link, which is not followed"):
            run(src, tmp_path / "linked", dry_run=dry)
    for dry in (True, False):
        with pytest.raises(OutputError, match="overwrite removes only its own"):
            run(src, out, overwrite=True, dry_run=dry)


def test_overwrite_removes_nothing_where_nothing_can_be_made(src, tmp_path):
    out = tmp_path / "d"
    run(src, out)
    before = digests(out)
    (tmp_path / "empty").mkdir()
    for wrong in ({"src": tmp_path / "misspelt"}, {"src": tmp_path / "empty"}, {"src": src, "window": "99"}):
        with pytest.raises(SourceError):
            run(out=out, overwrite=True, **wrong)
        assert digests(out) == before and not verify(out).problems


def test_nothing_kept_ends_with_1(src, tmp_path):
    for p in src.rglob("*.png"):
        if int(p.stem) % 9 == 5:
            p.write_bytes(b"x")
    summary = run(src, tmp_path / "a")
    assert (summary.samples, summary.rejects["unreadable"], summary.exit_code) == (0, 12, 1)
    assert "no sample was kept" in str(summary)


def test_odd_names_work(tmp_path):
    frames_folder(tmp_path / "my vidéos" / "日本 clip #1", 20)
    frames_folder(tmp_path / "my vidéos" / "日本 clip #2", 20, seed=1)
    summary = run(tmp_path / "my vidéos", tmp_path / "out put")
    assert summary.samples == 4 and len(set(keys(tmp_path / "out put"))) == 4


def test_the_recipe_file_is_the_resolved_one_and_makes_the_same_again(src, tmp_path):
    run(src, tmp_path / "a", seed=5, window="5-9")
    run(src, tmp_path / "b", recipe=str(tmp_path / "a" / "recipe.toml"))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_changed_curve_under_the_same_name_is_another_plan(src, tmp_path):
    curve = np.linspace(0, 1, 256)[:, None, None].repeat(3, 2)
    np.save(tmp_path / "crf.npy", curve**2.2)
    run(src, tmp_path / "a", crf=str(tmp_path / "crf.npy"))
    np.save(tmp_path / "crf.npy", curve**1.8)
    with pytest.raises(OutputError, match=r"another recipe \(crf: crf-\w{12}.npy there, crf-\w{12}.npy now"):
        run(src, tmp_path / "a", crf=str(tmp_path / "crf.npy"))


def samples(out):
    return [(s["__key__"], s) for t in sorted(Path(out).glob("*.tar")) for s in read_shard(t)]


def test_data_with_a_curve_from_a_file_is_made_again_from_any_folder(src, tmp_path, monkeypatch):
    """The curve and the profile go with the data: neither their folder nor the working folder counts."""
    first, again, elsewhere = tmp_path / "first", tmp_path / "again", tmp_path / "elsewhere"
    for folder in (first, elsewhere, tmp_path / "moved"):
        folder.mkdir()
    curve = np.linspace(0, 1, 256) ** 1.7
    np.save(first / "curve.npy", curve)
    np.save(first / "pulse.npy", np.array([0.0, 1.0, 0.5]))
    options = {"task": make_shard, "interp": "dis", "max_samples": 3}
    monkeypatch.chdir(first)
    run(src, "data", crf="curve.npy", profile="pulse.npy", **options)
    resumed = run(src, "data", recipe="data/recipe.toml", **options)
    assert resumed.made == 0 and resumed.samples == 3
    before = digests(first / "data")
    (first / "curve.npy").unlink()
    (first / "pulse.npy").unlink()
    monkeypatch.chdir(elsewhere)
    resumed = run(src, first / "data", recipe=str(first / "data" / "recipe.toml"), **options)
    assert (resumed.made, resumed.samples, digests(first / "data")) == (0, 3, before)
    assert explain(first / "data", samples(first / "data")[0][0], [str(src)]).rebuilt
    shutil.move(first / "data", tmp_path / "moved" / "data")
    run(src, again, recipe=str(tmp_path / "moved" / "data" / "recipe.toml"), **options)
    assert digests(again) == before
    assert samples(again) == samples(tmp_path / "moved" / "data")
    told = json.loads(samples(again)[0][1]["json"])
    assert re.fullmatch(r"crf-[0-9a-f]{12}\.npy", told["camera"]["crf"])
    assert told["exposure"]["profile"].startswith("profile-")
    # Over its own folder too, whose files go first.
    run(src, again, recipe=str(again / "recipe.toml"), overwrite=True, **options)
    assert digests(again) == before


def test_the_content_of_a_curve_decides_and_not_its_name(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 256) ** 2.2)
    shutil.copy(tmp_path / "a.npy", tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.linspace(0, 1, 256) ** 1.8)
    a, b, c = (Recipe(crf=str(tmp_path / f"{n}.npy")) for n in "abc")
    assert a.sha256 == b.sha256 != c.sha256


def test_a_kept_curve_that_was_changed_is_refused(src, tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 256) ** 2.2)
    run(src, tmp_path / "d", crf=str(tmp_path / "a.npy"))
    (kept,) = (tmp_path / "d").glob("crf-*.npy")
    held = kept.read_bytes()
    assert verify(tmp_path / "d", decode=False).problems == []
    for change in (lambda: kept.write_bytes(b"x"), kept.unlink):
        change()
        (told,) = verify(tmp_path / "d", decode=False).problems
        assert f"{kept}: is not there, or not what its name says" in told
    kept.write_bytes(held)
    np.save(kept, np.linspace(0, 1, 256))
    with pytest.raises(RecipeError, match="its content is not what its name says"):
        run(src, tmp_path / "e", recipe=str(tmp_path / "d" / "recipe.toml"))
    with pytest.raises(OutputError, match=f"holds a {kept.name} that blursynth did not write"):
        run(src, tmp_path / "d", crf=str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    "options",
    [{"crf": "nope.npy"}, {"profile": "nope.npy", "interp": "dis"}, {"gate": "what<1"}, {"noise": "loud"}],
    ids=str,
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_written(src, tmp_path, options):
    with pytest.raises(RecipeError, match=next(iter(options.values()))[:4]):
        run(src, tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_the_run_log_tells_each_shard_and_the_end(src, tmp_path):
    run(src, tmp_path / "a", workers=2)
    rows = [json.loads(line) for line in (tmp_path / "a" / "run.jsonl").read_text().splitlines()]
    assert [r["event"] for r in rows] == ["start", *["shard"] * 12, "end"]
    assert rows[0]["src"] == [str(src)] and rows[-1]["samples"] == 12 and rows[-1]["exit_code"] == 0
    assert sum(r["samples"] for r in rows[1:-1]) == 12 and all(r["peak_mb"] > 10 for r in rows[1:-1])


def test_no_source_and_unknown_options_are_named(tmp_path):
    with pytest.raises(RecipeError, match="--src"):
        make(out=tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'window'"):
        make("x", tmp_path, windw=9)


def test_the_package_offers_make_recipe_and_integrate_without_heavy_imports():
    import subprocess
    import sys

    code = "import blursynth, sys; print('numba' in sys.modules or 'cv2' in sys.modules); print(blursynth.Recipe, blursynth.make)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[0] == "False" and "Recipe" in out[1]
    version = next(
        line for line in Path("pyproject.toml").read_text().splitlines() if line.startswith("version")
    )
    assert version == f'version = "{blursynth.__version__}"'
    assert f"version: {blursynth.__version__}\n" in Path("CITATION.cff").read_text()
    assert f"\n## {blursynth.__version__} (" in Path("CHANGELOG.md").read_text()


def test_members_of_all_shards_have_fixed_owner_and_time(src, tmp_path):
    run(src, tmp_path / "a")
    for t in (tmp_path / "a").glob("*.tar"):
        with tarfile.open(t) as tar:
            assert {(m.mtime, m.uname, m.uid) for m in tar} == {(0, "blursynth", 0)}


@pytest.mark.slow
def test_dask_gives_the_same_bytes_and_survives_a_killed_worker(src, tmp_path):
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    from tests.blursynth.run.test_local import Cluster

    run(src, tmp_path / "local")
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask")
    try:
        assert run(src, tmp_path / "a", engine=cluster.url).samples == 12
        assert run(src, tmp_path / "b", engine=cluster.url, task=make_fakes.once_fatal_task).exit_code == 0
        assert (tmp_path / "b" / ".died-once").exists()
        (tmp_path / "b" / ".died-once").unlink()
        summary = run(src, tmp_path / "c", engine=cluster.url, task=make_fakes.poison_task)
        assert list(summary.failed) == ["train-000002"] and summary.exit_code == 1
        assert run(src, tmp_path / "c", engine=cluster.url, retry_failed=True).exit_code == 0
    finally:
        cluster.close()
    for name in "abc":
        assert digests(tmp_path / name) == digests(tmp_path / "local"), name


OTHERS = [
    "movie.mp4.part",
    "train-000000.tar.part",
    "notes.0123456789ab.part",
    "train-000000.tar.bak",
    "notes.txt",
]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_in_the_folder_stay(src, tmp_path, overwrite):
    out = tmp_path / "a"
    run(src, out)
    for name in OTHERS:
        (out / name).write_text("mine")
    ours = [
        part_name(out / n) for n in ("train-000000.tar", "train-000000.json", "dataset.json", "README.md")
    ]
    for part in ours:
        part.write_text("half")
    assert run(src, out, overwrite=overwrite).exit_code == 0
    assert all((out / name).read_text() == "mine" for name in OTHERS)
    assert not any(part.exists() for part in ours)


@pytest.mark.parametrize("name", ["recipe.toml", "dataset.json", "_info.json", "run.jsonl", "failed.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_that_name_by_another_is_never_written_over(src, tmp_path, name, overwrite):
    out = tmp_path / "a"
    out.mkdir()
    (out / name).write_text("window = 5 # mine")
    with pytest.raises(OutputError, match=f"{name} that blursynth did not write"):
        run(src, out, overwrite=overwrite)
    assert (out / name).read_text() == "window = 5 # mine" and not list(out.glob("*.tar"))


@pytest.mark.parametrize(
    "name",
    [
        "run.jsonl",
        "recipe.toml",
        "dataset.json",
        "failed.json",
        ".blursynth/lock",
        ".blursynth/workers",
        ".blursynth",
    ],
)
@pytest.mark.parametrize("kind", ["to a file", "dangling", "to a folder"])
def test_links_are_not_followed(src, tmp_path, name, kind):
    out, precious, folder = tmp_path / "a", tmp_path / "precious", tmp_path / "folder"
    (out / name).parent.mkdir(parents=True)
    folder.mkdir()
    precious.write_text("keep")
    aim = {"to a file": precious, "dangling": tmp_path / "made", "to a folder": folder}[kind]
    (out / name).symlink_to(aim)
    with pytest.raises(OutputError, match=re.escape(Path(name).name)):
        run(src, out)
    assert precious.read_text() == "keep" and not (tmp_path / "made").exists() and not list(folder.iterdir())


@pytest.mark.parametrize("name", ["README.md", "_info.json", "train-000000.tar", "train-000000.json"])
def test_a_link_where_a_whole_file_goes_is_replaced_or_refused_never_followed(src, tmp_path, name):
    out, precious = tmp_path / "a", tmp_path / "precious"
    out.mkdir()
    precious.write_text("keep")
    (out / name).symlink_to(precious)
    with contextlib.suppress(OutputError):
        run(src, out)
    assert precious.read_text() == "keep"


class NothingOf(make_fakes.MeanSynthesizer):
    """Rejects every window of the clips whose name CLIPS holds."""

    clips: tuple[str, ...] = ()

    def sample(self, clip_id, *args, **kwargs):
        sample = super().sample(clip_id, *args, **kwargs)
        sample.rejected = "gate:soft" if clip_id in self.clips else None
        return sample


@pytest.mark.parametrize("which", ["one clip", "val", "train"])
def test_a_clip_or_split_that_ends_empty_is_named_and_no_train_is_a_failure(src, tmp_path, which):
    full = run(src, tmp_path / "a", val_fraction=0.34)
    sides = [read_sidecar(p) for p in (tmp_path / "a").glob("*-0*.json")]
    of = {
        split: sorted({rel for s in sides if s["split"] == split for rel in s["sources"]})
        for split in ("train", "val")
    }
    lost = of["train"][:1] if which == "one clip" else of[which]
    maker = type("Maker", (NothingOf,), {"clips": tuple(lost)})
    summary = run(src, tmp_path / "b", lambda t: make_shard(t, maker), val_fraction=0.34)
    assert full.exit_code == 0 and not full.empty_clips and not full.empty_splits
    assert list(summary.empty_clips) == lost and all(
        f"nothing was kept of {rel}" in str(summary) for rel in lost
    )
    assert "loosen --gate (soft)" in str(summary)
    assert summary.empty_splits == ([] if which == "one clip" else [which])
    assert summary.exit_code == (1 if which == "train" else 0)
    problems = verify(tmp_path / "b").problems
    assert any("no train sample" in p for p in problems) == (which == "train")


@pytest.mark.parametrize(
    ("fps", "window", "warned"), [(30, 9, True), (30, 3, False), (240, 9, False), (89, 9, True)]
)
def test_make_warns_of_long_exposures_as_audit_does(src, tmp_path, fps, window, warned):
    summary = run(src, tmp_path / "a", fps=fps, window=window)
    wanted = [f"3 clips: {low_rate(fps, window)}"] if warned else []
    assert [w for w in summary.warnings if "is a low rate" in w] == wanted


def test_make_says_of_a_films_time_stamps_what_audit_says(tmp_path):
    """A phone's slow motion, 30 then 240 fps with a hole: the same advice, before anything is decoded."""
    pts = [0, 8, 16, 24, 32, 40, 48, *range(56, 76), *range(96, 116)]
    film = write_video(tmp_path / "slow.mp4", moving(len(pts)), fps=240, pts=pts)
    (audited,) = audit_source([film]).clips
    said = known_undecoded(
        audited.read, len(audited.gaps), len(audited.rate_changes), audited.rate_jitter, "srgb"
    )
    assert said and set(said) <= set(audited.advice)
    summary = run(film, tmp_path / "a", window=3, recipe=Recipe())
    assert [f"slow.mp4: {words}" for words in said] == [
        w for w in summary.warnings if "is a low rate" not in w
    ]


def test_a_run_that_was_stopped_blames_no_gate():
    """What was not made yet is not left out: only a run that came to its end may say that a split kept nothing."""
    summary = Summary("data", planned=9, planned_splits={"train": 9})
    assert "no train sample was kept" in str(summary) and summary.exit_code == 1
    summary.stopped = "no Dask scheduler answers"
    assert "was kept" not in str(summary) and summary.exit_code == 1


def test_a_line_break_in_a_clips_name_forges_no_line():
    name = "a\n  this run: 999 samples"
    summary = Summary("data", warnings=[f"{name}: says 24 fps"])
    summary.clip_seconds.update({name: 2.0, "b": 1.0})
    lines = str(summary).splitlines()
    assert len(lines) == len(summary.lines()) and sum(line.startswith("  this run") for line in lines) == 1
