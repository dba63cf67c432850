"""pack: every pair once, its own bytes, no scene in two splits, nothing invented, nothing lost in silence."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from blursynth import inspect, pack, verify
from blursynth.cli.main import main
from blursynth.common.errors import UsageError
from blursynth.run.folder import OutputError
from blursynth.shards.layouts import LayoutError
from blursynth.shards.picture import decode_image
from blursynth.shards.schema import parse_sample_json, problem_with
from blursynth.shards.shard import read_shard
from tests.helpers.pair_trees import gopro, put, realblur, reds, rgb, turned


def samples(data):
    """{key: (split, members)}"""
    found = {}
    for path in sorted(data.glob("*.tar")):
        for s in read_shard(path):
            assert s["__key__"] not in found
            found[s["__key__"]] = (path.name.partition("-")[0], s)
    return found


def metas(data):
    return [(split, json.loads(s["json"])) for split, s in samples(data).values()]


def packed_bytes(data):
    """{blurred file: (bytes of blur, bytes of sharp)}"""
    found = {}
    for _, s in samples(data).values():
        ext = "png" if "blur.png" in s else "webp"
        found[json.loads(s["json"])["packed"]["blur"]] = (s[f"blur.{ext}"], s[f"sharp.{ext}"])
    return found


def test_other_programs_files_in_the_folder_stay(tmp_path):
    root, out = gopro(tmp_path / "set", n=1), tmp_path / "d"
    out.mkdir()
    (out / "film.mp4.part").write_text("a download")
    pack(root, out)
    assert (out / "film.mp4.part").read_text() == "a download"
    for name in ("samples.csv", "dataset.json", "_info.json"):
        other = tmp_path / name.partition(".")[0]
        other.mkdir()
        (other / name).write_text("mine")
        with pytest.raises(OutputError, match=f"holds a {name} that blursynth did not write"):
            pack(root, other)
        assert (other / name).read_text() == "mine"


@pytest.mark.parametrize(("orientation", "copied"), [(1, True), (3, False), (6, False)])
def test_a_picture_that_its_metadata_turn_is_packed_upright(tmp_path, orientation, copied):
    """Readers of shards take pixels as they stand; a copy of the file would show one side turned, the other not."""
    for i in range(2):
        for side in ("blur", "sharp"):
            file = put(tmp_path / side / f"{i}.png", size=(24, 24))
        stored = decode_image(file.read_bytes())
        file.write_bytes(turned(file.read_bytes(), orientation))
    report = pack(blur=tmp_path / "blur", sharp=tmp_path / "sharp", out=tmp_path / "d", val_fraction=0)
    assert report.copied == (4 if copied else 2) and not report.failed
    ((_, got),) = [s for k, s in samples(tmp_path / "d").items() if k == "1"]
    upright = {1: stored, 3: np.rot90(stored, 2), 6: np.rot90(stored, -1)}[orientation]
    assert np.array_equal(decode_image(got["sharp.png"]), upright)


@pytest.mark.parametrize(
    ("tree", "blurred", "twin"),
    [
        (gopro, "*/*/blur/*.png", lambda p: p.replace("/blur/", "/sharp/")),
        (realblur, "*/blur/*.png", lambda p: p.replace("/blur/blur_", "/gt/gt_")),
        (reds, "train_blur/*/*.png", lambda p: p.replace("train_blur", "train_sharp")),
    ],
)
def test_every_pair_of_a_tree_is_there_once_with_its_files_bytes(tmp_path, tree, blurred, twin):
    root = tree(tmp_path / "set")
    report = pack(root, tmp_path / "d")
    want = {
        p.relative_to(root).as_posix(): (
            p.read_bytes(),
            (root / twin(p.relative_to(root).as_posix())).read_bytes(),
        )
        for p in root.glob(blurred)
    }
    assert packed_bytes(tmp_path / "d") == want and len(want) >= 9
    assert (
        report.exit_code == 0 and sum(report.splits.values()) == len(want) and report.copied == 2 * len(want)
    )


def test_what_is_not_known_is_null_and_every_reader_takes_it(tmp_path):
    pack(gopro(tmp_path / "set"), tmp_path / "d")
    for key, (_, s) in samples(tmp_path / "d").items():
        meta = json.loads(s["json"])
        assert problem_with(meta, key) is None
        parse_sample_json(s["json"])
        assert set(meta["exposure"].values()) == {None} and set(meta["camera"].values()) == {None}
        assert (
            set(meta["flow"].values()) == {None} and meta["seed"] is None and meta["quality"]["score"] is None
        )
        source = meta["source"]
        assert [source[k] for k in ("dataset", "fps", "first", "last", "target")] == [None] * 5
        assert not source["path"].startswith("/") and str(tmp_path) not in s["json"].decode()
    report = verify(tmp_path / "d")
    assert not report.problems and report.samples == 12
    seen = inspect(str(tmp_path / "d"), str(tmp_path / "preview.html"))
    assert sum(seen.samples.values()) == 12 and not seen.damaged
    text = (tmp_path / "preview.html").read_text(encoding="utf-8")
    assert "None" not in text.replace("none", "")
    done = CliRunner().invoke(main, ["explain", str(tmp_path / "d"), key])
    assert done.exit_code == 1 and "packed" in done.output and "Traceback" not in done.output


def test_official_splits_hold_when_both_are_there_and_only_then(tmp_path):
    root = gopro(tmp_path / "set")
    pack(root, tmp_path / "both", val_fraction=0.5)
    assert {(s, m["source"]["clip"].split("/")[0]) for s, m in metas(tmp_path / "both")} == {
        ("train", "train"),
        ("val", "test"),
    }
    pack(root / "train", tmp_path / "one", val_fraction=0.5)
    assert {s for s, _ in metas(tmp_path / "one")} == {"train", "val"}


@pytest.mark.parametrize("seed", range(4))
def test_no_scene_stands_in_two_splits(tmp_path, seed):
    pack(realblur(tmp_path / "set", 7), tmp_path / "d", val_fraction=0.3, seed=seed)
    splits = defaultdict(set)
    for split, meta in metas(tmp_path / "d"):
        splits[meta["source"]["clip"]].add(split)
    assert all(len(s) == 1 for s in splits.values()) and sum(s == {"val"} for s in splits.values()) == 2


def test_scenes_with_one_sharp_picture_stay_together(tmp_path):
    """Four kernels on one picture are four scenes by name, and one by what is in them."""
    root = tmp_path / "set"
    for i in range(12):
        put(root / "input" / f"{i:02d}.png")
        put(root / "target" / f"{i:02d}.png", rgb(str(i // 4)))
    pack(root, tmp_path / "d", val_fraction=0.4)
    splits = defaultdict(set)
    for split, meta in metas(tmp_path / "d"):
        splits[meta["source"]["sha256"]].add(split)
    assert (
        len(splits) == 3
        and all(len(s) == 1 for s in splits.values())
        and {"train", "val"} == set.union(*splits.values())
    )
    assert not verify(tmp_path / "d").problems


def test_formats(tmp_path):
    """Lossless 8 and 16 bits are copied; the rest is decoded to what any viewer shows."""
    blur, sharp = tmp_path / "b", tmp_path / "s"
    lossless = (cv2.IMWRITE_WEBP_QUALITY, 101)
    put(blur / "1.png"), put(sharp / "1.png")
    put(blur / "2.png", depth=16), put(sharp / "2.png", depth=16)
    put(blur / "3.webp", flags=lossless), put(sharp / "3.webp", flags=lossless)
    put(blur / "4.jpg"), put(sharp / "4.png")
    put(blur / "5.webp", flags=(cv2.IMWRITE_WEBP_QUALITY, 80)), put(sharp / "5.webp", flags=lossless)
    grey = rgb("grey")[..., 0]
    put(blur / "6.png", grey), put(sharp / "6.png", np.dstack([rgb("x"), np.full((24, 32), 255, np.uint8)]))
    put(blur / "7.tif", depth=16), put(sharp / "7.bmp")
    report = pack(None, tmp_path / "d", blur=blur, sharp=sharp)
    assert report.exit_code == 0 and report.copied == 3 * 2 + 1 + 1
    by_name = {json.loads(s["json"])["packed"]["name"]: s for _, s in samples(tmp_path / "d").values()}
    for n, ext in (("1", "png"), ("2", "png"), ("3", "webp")):
        assert by_name[n][f"blur.{ext}"] == (blur / f"{n}.{ext}").read_bytes()
        assert by_name[n][f"sharp.{ext}"] == (sharp / f"{n}.{ext}").read_bytes()
    assert decode_image(by_name["2"]["blur.png"]).dtype == np.uint16
    for n, name in (("4", "4.jpg"), ("5", "5.webp")):
        np.testing.assert_array_equal(
            decode_image(by_name[n]["blur.png"]), cv2.imread(str(blur / name))[..., ::-1]
        )
    np.testing.assert_array_equal(decode_image(by_name["6"]["blur.png"]), np.dstack([grey] * 3))
    np.testing.assert_array_equal(decode_image(by_name["6"]["sharp.png"]), rgb("x"))
    np.testing.assert_array_equal(decode_image(by_name["7"]["blur.png"]), rgb(str(blur / "7.tif"), depth=16))


def test_what_cannot_be_used_is_named_with_its_reason_and_ends_with_1(tmp_path):
    root = realblur(tmp_path / "set", 5, 2)
    put(root / "scene001" / "gt" / "gt_1.png", size=(40, 24))
    (root / "scene002" / "blur" / "blur_1.png").write_bytes(
        (root / "scene002" / "blur" / "blur_1.png").read_bytes()[:-30]
    )
    (root / "scene003" / "gt" / "gt_2.png").write_bytes(
        (root / "scene003" / "blur" / "blur_2.png").read_bytes()
    )
    put(root / "scene004" / "blur" / "blur_1.png", np.dstack([rgb("x"), np.full((24, 32), 7, np.uint8)]))
    put(root / "scene005" / "blur" / "blur_9.png")
    report = pack(root, tmp_path / "d")
    assert report.exit_code == 1 and sum(report.splits.values()) == 6 and len(report.failed) == 4
    told = " | ".join(report.failed)
    for words in ("32x24 and 40x24", "truncated", "the same bytes", "transparency"):
        assert words in told
    assert "blur_9.png" in " ".join(report.notes) and not verify(tmp_path / "d").problems


def test_again_is_the_same_bytes_and_other_pairs_are_refused(tmp_path):
    root = reds(tmp_path / "set")
    pack(root, tmp_path / "d", shard_samples=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir() if p.is_file()}
    (tmp_path / "d" / "train-000001.json").unlink()  # as if it had been killed
    (tmp_path / "d" / "dataset.json").unlink()
    pack(root, tmp_path / "d", shard_samples=1)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir() if p.is_file()}
    pack(root, tmp_path / "other", shard_samples=1)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "other").iterdir() if p.is_file()}
    put(root / "train_blur/000/00000000.png", size=(40, 24))
    with pytest.raises(OutputError, match="other pairs or settings"):
        pack(root, tmp_path / "d", shard_samples=1)


def test_a_tar_that_is_not_ours_is_not_written_over(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(OutputError, match="did not make"):
        pack(reds(tmp_path / "set"), tmp_path / "d")
    assert (tmp_path / "d" / "train-000000.tar").read_bytes() == b"mine"
    with pytest.raises(UsageError, match="folder of this machine"):
        pack(tmp_path / "set", "s3://bucket/d")


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_are_no_text(tmp_path):
    """A file name of any bytes is packed, and comes back as it was."""
    root = os.fsencode(tmp_path / "set")
    for clip in (b"\xff\xfe", b"b"):
        for side in (b"blur", b"sharp"):
            os.makedirs(os.path.join(root, clip, side))  # noqa: PTH103, PTH118
            put(Path(os.fsdecode(os.path.join(root, clip, side, b"\xe9.png"))), rgb(repr((clip, side))))  # noqa: PTH118
    report = pack(tmp_path / "set", tmp_path / "d", val_fraction=0.5)
    assert report.splits == {"train": 1, "val": 1} and not verify(tmp_path / "d").problems
    clips = {m["packed"]["blur"].split("/")[0] for _, m in metas(tmp_path / "d")}
    assert clips == {os.fsdecode(b"\xff\xfe"), "b"}
    assert CliRunner().invoke(
        main, ["pack", str(tmp_path / "set"), "--out", str(tmp_path / "d")]
    ).exit_code in (0, 2)


def test_a_shard_is_not_one_scene(tmp_path):
    pack(realblur(tmp_path / "set", 4, 12), tmp_path / "d", val_fraction=0, shard_samples=3)
    for path in (tmp_path / "d").glob("train-*.tar"):
        scenes = [json.loads(s["json"])["source"]["clip"] for s in read_shard(path)]
        assert len(set(scenes)) == len(scenes) == 3


def test_usage(tmp_path):
    with pytest.raises(UsageError, match="either ROOT"):
        pack(None, tmp_path / "d")
    with pytest.raises(UsageError, match="either ROOT"):
        pack(tmp_path, tmp_path / "d", blur=tmp_path)
    with pytest.raises(LayoutError, match="no pairs in a layout"):
        pack(tmp_path, tmp_path / "d")
    root = gopro(tmp_path / "set")
    done = CliRunner().invoke(main, ["pack", str(root), "--out", str(tmp_path / "d"), "--gamma", "--quiet"])
    assert done.exit_code == 0, done.output
    assert "12 pairs (8 train (2 scenes), 4 val (1 scene))" in done.output
    assert all("/blur_gamma/" in m["packed"]["blur"] for _, m in metas(tmp_path / "d"))
    assert CliRunner().invoke(main, ["pack", str(tmp_path / "none")]).exit_code == 1


def test_a_set_without_a_pair_is_not_recommended(tmp_path):
    """Every pair is left out (two equal pictures): the words name the fault and no next step."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for side in ("blur", "sharp"):
        (tmp_path / "src" / "a" / side).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "src" / "a" / side / "000.png"), picture)
    words = str(pack(tmp_path / "src", tmp_path / "data"))
    assert "1 pair left out" in words and "train on it" not in words


def test_few_pairs_are_one_shard_a_split_and_more_are_cut_by_bytes(tmp_path, monkeypatch):
    root = realblur(tmp_path / "set", 10, 20)
    pack(root, tmp_path / "d", val_fraction=0.1)
    assert sorted(p.name for p in (tmp_path / "d").glob("*.tar")) == ["train-000000.tar", "val-000000.tar"]
    size = (tmp_path / "d" / "train-000000.tar").stat().st_size
    monkeypatch.setattr("blursynth.run.packing.SHARD_BYTES", size / 20)
    pack(root, tmp_path / "e", val_fraction=0.1)
    shards = json.loads((tmp_path / "e" / "_info.json").read_text())["splits"]["train"]["shard_lengths"]
    assert shards == [60, 60, 60], "at least 50 pairs each, alike"
    assert packed_bytes(tmp_path / "d") == packed_bytes(tmp_path / "e")
