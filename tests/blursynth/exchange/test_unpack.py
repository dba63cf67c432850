"""unpack: what other tools read is what the shards hold, byte for byte; and pack and unpack are each other's inverse."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from blursynth import make, pack, unpack
from blursynth.cli.main import main
from blursynth.common.errors import UsageError
from blursynth.shards.shard import ShardError, ShardWriter, read_shard
from tests.helpers import make_fakes
from tests.helpers.make_fakes import frames_folder
from tests.helpers.pair_trees import gopro, put, realblur


def paired_paths_from_folder(folders, filename_tmpl="{}"):
    """BasicSR's rule (basicsr/data/data_util.py): both sides are listed, must be as many, and pair by name."""
    sides = [
        sorted(e.name for e in os.scandir(f) if not e.name.startswith(".") and e.is_file()) for f in folders
    ]
    assert len(sides[0]) == len(sides[1])
    out = []
    for name in sides[1]:
        twin = f"{filename_tmpl.format(Path(name).stem)}{Path(name).suffix}"
        assert twin in sides[0]
        out.append((Path(folders[0]) / twin, Path(folders[1]) / name))
    return out


def paired_paths_from_lmdb(folders):
    """BasicSR's rule: names end in .lmdb, the keys are what stands before the first dot of a line, equal on both sides."""
    assert all(str(f).endswith(".lmdb") for f in folders)
    sides = [
        [line.split(".")[0] for line in (Path(f) / "meta_info.txt").read_text().splitlines()] for f in folders
    ]
    assert set(sides[0]) == set(sides[1]) and len(set(sides[0])) == len(sides[0])
    return sorted(sides[0])


def listed(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def shard_pairs(data, split):
    """{key: (bytes of blur, bytes of sharp)}"""
    return {
        s["__key__"]: tuple(next(v for k, v in s.items() if k.startswith(f"{r}.")) for r in ("blur", "sharp"))
        for path in sorted(Path(data).glob(f"{split}-*.tar"))
        for s in read_shard(path)
    }


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A set that make wrote: two clips, windows of 9 frames."""
    tmp = tmp_path_factory.mktemp("film")
    for i in range(2):
        frames_folder(tmp / "src" / f"GOPR000{i}_11_00", 40, seed=i)
    make(tmp / "src", tmp / "d", interp="none", fps=240, workers=1, quiet=True, task=make_fakes.mean_task)
    return tmp / "d"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("real")
    pack(realblur(tmp / "set"), tmp / "d", val_fraction=0.34)
    return tmp / "d"


@pytest.mark.parametrize("data", ["film", "real"])
@pytest.mark.parametrize(("layout", "sides"), [("nafnet", ("input", "target")), ("basicsr", ("lq", "gt"))])
def test_folders_as_basicsr_pairs_them(request, tmp_path, data, layout, sides):
    data = request.getfixturevalue(data)
    report = unpack(data, tmp_path / "out", layout)
    for split in ("train", "val"):
        want = shard_pairs(data, split)
        pairs = paired_paths_from_folder([tmp_path / "out" / split / s for s in sides])
        assert {a.stem: (a.read_bytes(), b.read_bytes()) for a, b in pairs} == want and want
        assert report.pairs[split] == len(want)
        assert {p.stem for p in (tmp_path / "out" / split / "json").iterdir()} == want.keys()


@pytest.mark.parametrize("layout", ["nafnet", "basicsr", "gopro"])
def test_lmdb_as_basicsr_reads_it(real, tmp_path, layout):
    lmdb = pytest.importorskip("lmdb", reason="the lmdb extra is not installed")
    report = unpack(real, tmp_path / "out", layout, lmdb=True)
    for split in ("train", "val"):
        folders = [f for f in report.folders if f"/{split}/" in f]
        keys = paired_paths_from_lmdb(folders)
        want = sorted(shard_pairs(real, split).values())
        got = {k: [] for k in keys}
        for folder in folders:
            env = lmdb.open(folder, readonly=True, lock=False, readahead=False, meminit=False)
            with env.begin(write=False) as txn:
                assert txn.stat()["entries"] == len(keys)
                for k in keys:
                    got[k].append(bytes(txn.get(k.encode("ascii"))))
            lines = (Path(folder) / "meta_info.txt").read_text().splitlines()
            sizes = {line.split(".")[0]: line.split(" ")[1] for line in lines}
            for k in keys:
                image = cv2.imdecode(np.frombuffer(got[k][-1], np.uint8), cv2.IMREAD_COLOR)
                assert sizes[k] == str(image.shape).replace(" ", "")
            env.close()
        blur_first = "target" not in folders[0] and "gt" not in folders[0] and "sharp" not in folders[0]
        assert sorted(tuple(v if blur_first else v[::-1]) for v in got.values()) == want


def test_lmdb_grows_beyond_its_first_size(tmp_path, monkeypatch):
    lmdb = pytest.importorskip("lmdb", reason="the lmdb extra is not installed")
    import blursynth.exchange.lmdb as ours

    monkeypatch.setattr(ours, "GROW", 1 << 16)
    db = ours.PairsLmdb(tmp_path / "x.lmdb")
    data = put(tmp_path / "a.png", size=(96, 96)).read_bytes()
    for i in range(100):
        db.put(f"{i:03d}", "png", data)
    db.close()
    with lmdb.open(str(tmp_path / "x.lmdb"), readonly=True).begin() as txn:
        assert txn.stat()["entries"] == 100 and txn.get(b"099") == data
    with pytest.raises(ShardError, match="dot"):
        ours.PairsLmdb(tmp_path / "y.lmdb").put("a.b", "png", data)


def test_gopro_and_back_is_the_same_tree_and_the_same_files(tmp_path):
    """pack -> unpack: each file where it was; pack again: the same samples."""
    root = gopro(tmp_path / "set")
    pack(root, tmp_path / "d")
    unpack(tmp_path / "d", tmp_path / "out", "gopro")
    for split, there in (("train", "train"), ("test", "val")):
        files = [p for p in sorted((root / split).rglob("*.png")) if p.parent.name != "blur_gamma"]
        assert files
        for p in files:
            assert (tmp_path / "out" / there / p.relative_to(root / split)).read_bytes() == p.read_bytes()
    count = len(list((tmp_path / "out").rglob("*.png")))
    assert count == len([p for p in root.rglob("*.png") if p.parent.name != "blur_gamma"])
    pack(tmp_path / "out", tmp_path / "again")
    for split in ("train", "val"):
        assert sorted(shard_pairs(tmp_path / "again", split).values()) == sorted(
            shard_pairs(tmp_path / "d", split).values()
        )


def test_gopro_layout_of_a_film_is_in_the_order_of_time(film, tmp_path):
    unpack(film, tmp_path / "out", "gopro")
    clips = [c for split in ("train", "val") for c in sorted((tmp_path / "out" / split).iterdir())]
    assert len(clips) == 2
    for clip in clips:
        blur, sharp, meta = (listed(clip / k) for k in ("blur", "sharp", "json"))
        assert blur == sharp == ["000004.png", "000013.png", "000022.png", "000031.png"]
        targets = [json.loads((clip / "json" / n).read_text())["source"]["target"] for n in meta]
        assert targets == [4, 13, 22, 31]


def one_shard(folder, samples, split="train"):
    folder.mkdir()
    with ShardWriter(folder, f"{split}-000000") as w:
        for key, members in samples.items():
            w.add(key, members)
        w.commit({"recipe_sha256": "r", "plan_sha256": "p", "counts": {"written": 1, "rejected": {}}})
    return folder


def members(clip, target, tile=None, window=None, **more):
    meta = {"source": {"clip": clip, "target": target}} | ({"tile": {"window": window}} if tile else {})
    return {"blur.png": b"b", "sharp.png": b"s", "json": json.dumps(meta).encode(), **more}


def test_a_folder_that_is_not_ours_stays(tmp_path):
    """Only what a killed call left half-written is removed, known by its name."""
    pack(gopro(tmp_path / "set", n=1), tmp_path / "d")
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "a").write_text("mine")
    (tmp_path / "out.0123456789ab.part" / "train").mkdir(parents=True)
    unpack(tmp_path / "d", tmp_path / "out")
    assert (tmp_path / "out.part" / "a").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out", "out.part"]


def test_exposures_around_one_frame_tiles_and_labels_keep_apart(tmp_path):
    data = one_shard(
        tmp_path / "d",
        {
            "c_000000_09": members("c", 4),
            "c_000001_07": members("c", 4, **{"flow.npy": b"f", "mask.png": b"m"}),
            "c_000010_09_t0000": members("c", 14, tile=True, window="c_000010_09"),
            "c_000010_09_t0001": members("c", 14, tile=True, window="c_000010_09"),
        },
    )
    unpack(data, tmp_path / "out", "gopro")
    clip = tmp_path / "out" / "train" / "c"
    assert listed(clip / "blur") == [
        "000004.png",
        "000004_2.png",
        "000014_t0000.png",
        "000014_t0001.png",
    ]
    assert listed(clip / "flow") == ["000004_2.npy"] and listed(clip / "mask") == ["000004_2.png"]


def test_names_that_an_lmdb_cannot_hold_give_way_to_the_key(tmp_path):
    pytest.importorskip("lmdb", reason="the lmdb extra is not installed")
    root = tmp_path / "set"
    for clip in ("Straße", "b.2", "line\nbreak"):
        for side in ("blur", "sharp"):
            for n in ("1", "2"):
                put(root / clip / side / f"{n}.png")
    pack(root, tmp_path / "d", val_fraction=0)
    report = unpack(tmp_path / "d", tmp_path / "out", "gopro", lmdb=True)
    keys = {s["__key__"] for p in (tmp_path / "d").glob("*.tar") for s in read_shard(p)}
    assert set(paired_paths_from_lmdb(report.folders)) == keys and len(keys) == 6


def test_names_from_a_shard_stay_inside(tmp_path):
    evil = {"packed": {"scene": "../../../x", "name": "..\\../../y"}, "source": {}}
    data = one_shard(
        tmp_path / "d", {"k": {"blur.png": b"b", "sharp.png": b"s", "json": json.dumps(evil).encode()}}
    )
    unpack(data, tmp_path / "o" / "out", "gopro")
    assert {p.name for p in tmp_path.iterdir()} == {"d", "o"} and {
        p.name for p in (tmp_path / "o").iterdir()
    } == {"out"}
    assert len([p for p in (tmp_path / "o" / "out").rglob("*") if p.is_file()]) == 3


def test_names_that_no_file_or_no_reader_takes(tmp_path):
    def sample(scene, name):
        meta = {"packed": {"scene": scene, "name": name}, "source": {}}
        return {"blur.png": b"b", "sharp.png": b"s", "json": json.dumps(meta).encode()}

    names = {"k1": ("..a", ".."), "k2": ("..a", ""), "k3": ("..a", ".x"), "k4": ("..a", "x")}
    unpack(one_shard(tmp_path / "d", {k: sample(*n) for k, n in names.items()}), tmp_path / "out", "gopro")
    blurred = {p.name for p in (tmp_path / "out" / "train" / "a" / "blur").iterdir()}
    assert blurred == {"k1.png", "k2.png", "x.png", "x_2.png"}, "none is hidden"
    data = one_shard(tmp_path / "nul", {"k": sample("a\0b", "x")})
    with pytest.raises(ShardError, match="null byte"):
        unpack(data, tmp_path / "none", "gopro")


def test_a_damaged_shard_leaves_nothing_behind(tmp_path, real):
    data = tmp_path / "d"
    data.mkdir()
    for p in Path(real).glob("*-*.*"):
        (data / p.name).write_bytes(p.read_bytes())
    last = sorted(data.glob("val-*.tar"))[-1]
    last.write_bytes(last.read_bytes()[:1200])
    with pytest.raises(ShardError, match=last.name):
        unpack(data, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("damage", ["flip", "short", "other"])
def test_a_shard_that_is_not_what_its_sidecar_says_is_refused_by_name(tmp_path, film, damage):
    """One flipped bit lies in a picture, which is written as it is: no reader of folders would ever notice."""
    data = Path(shutil.copytree(film, tmp_path / "d"))
    tar = data / "train-000000.tar"
    held = tar.read_bytes()
    flipped = held[:3000] + bytes([held[3000] ^ 1]) + held[3001:]
    other = (data / "val-000000.tar").read_bytes()
    tar.write_bytes({"flip": flipped, "short": held[:-512], "other": other}[damage])
    with pytest.raises(ShardError, match=r"train-000000\.tar: is not what its sidecar says"):
        unpack(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "gone", [["train-000000.tar"], ["train-000000.tar", "train-000000.json"], ["dataset.json"]]
)
def test_what_a_set_lacks_is_said_and_ends_with_1(tmp_path, film, gone):
    data = Path(shutil.copytree(film, tmp_path / "d"))
    for name in gone:
        (data / name).unlink()
    done = CliRunner().invoke(main, ["unpack", str(data), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "note: " in done.output and (tmp_path / "out" / "val").is_dir()
    report = unpack(data, tmp_path / "again")
    assert report.exit_code == 1 and len(report.notes) == 1
    assert report.pairs == ({"train": 4, "val": 4} if gone == ["dataset.json"] else {"val": 4})
    assert gone[0] in report.notes[0] or gone == ["dataset.json"]


def test_a_val_shard_under_a_train_name_is_refused(tmp_path, film):
    data = Path(shutil.copytree(film, tmp_path / "d"))
    for ext in ("tar", "json"):
        (data / f"val-000000.{ext}").rename(data / f"train-000009.{ext}")
    with pytest.raises(ShardError, match=r"train-000009\.tar: its sidecar is that of val-000000\.tar"):
        unpack(data, tmp_path / "out")


def test_a_shard_of_another_set_is_said(tmp_path, film):
    data = Path(shutil.copytree(film, tmp_path / "d"))
    shutil.copy(data / "val-000000.tar", data / "val-000009.tar")
    side = json.loads((data / "val-000000.json").read_bytes())
    (data / "val-000009.json").write_text(json.dumps(side | {"shard": "val-000009.tar"}))
    report = unpack(data, tmp_path / "u", layout="gopro")
    assert report.exit_code == 1 and "val-000009.tar: in no list of dataset.json" in report.notes[0]
    with pytest.raises(ShardError, match="two files of the set have this name"):
        unpack(data, tmp_path / "n")


@pytest.mark.parametrize("lacks", ["index", "sidecar"])
def test_what_cannot_be_compared_is_said_and_ends_with_1(tmp_path, film, lacks):
    data = Path(shutil.copytree(film, tmp_path / "d"))
    if lacks == "index":
        (data / "dataset.json").write_bytes((data / "dataset.json").read_bytes()[:200])
        for ext in ("tar", "json"):
            (data / f"train-000000.{ext}").unlink()
    else:
        (data / "train-000000.json").unlink()
    report = unpack(data, tmp_path / "out")
    assert report.exit_code == 1 and len(report.notes) == 1
    assert {"index": "dataset.json: cannot be read", "sidecar": "train-000000.tar: not compared"}[
        lacks
    ] in report.notes[0]


@pytest.mark.parametrize("lmdb", [False, True])
def test_clips_and_frames_whose_names_meet_keep_apart(tmp_path, lmdb):
    """a/b and a_b want one folder, and the second sample of a frame 1 the name of a frame called 1_2."""
    if lmdb:
        pytest.importorskip("lmdb", reason="the lmdb extra is not installed")
    root = tmp_path / "set"
    for clip in ("a/b", "a_b", "c"):
        for name in ("1", "1_2", "2"):
            for side in ("blur", "sharp"):
                put(root / clip / side / f"{name}.png")
    pack(root, tmp_path / "d", val_fraction=0)
    report = unpack(tmp_path / "d", tmp_path / "out", "gopro", lmdb=lmdb)
    want = {blur for blur, _ in shard_pairs(tmp_path / "d", "train").values()}
    assert len(want) == 9 and not report.notes
    if lmdb:
        assert len(paired_paths_from_lmdb(report.folders)) == 9
        return
    clips = listed(tmp_path / "out" / "train")
    assert clips == ["a_b", "a_b_2", "c"]
    got = [p.read_bytes() for c in clips for p in (tmp_path / "out" / "train" / c / "blur").iterdir()]
    assert len(got) == 9 and set(got) == want


def test_labels_lie_beside_an_lmdb_as_beside_folders(tmp_path):
    pytest.importorskip("lmdb", reason="the lmdb extra is not installed")
    png = put(tmp_path / "a.png").read_bytes()
    sample = {
        "blur.png": png,
        "sharp.png": png,
        "json": b"{}",
        "flow.npy": b"f",
        "mask.png": b"m",
        "linear.png": b"l",
    }
    data = one_shard(tmp_path / "d", {"k": sample})
    beside = {}
    for lmdb in (False, True):
        unpack(data, tmp_path / f"{lmdb}", "nafnet", lmdb=lmdb)
        train = tmp_path / f"{lmdb}" / "train"
        names = ("json/k.json", "flow/k.npy", "mask/k.png", "linear/k.png")
        beside[lmdb] = [(train / n).read_bytes() for n in names]
    assert beside[True] == beside[False] == [b"{}", b"f", b"m", b"l"]


@pytest.mark.parametrize("to", ["empty", "nowhere"])
def test_a_link_is_refused_by_its_name(tmp_path, real, to):
    """To an empty folder or to nothing: a folder cannot be renamed onto it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").symlink_to(to)
    with pytest.raises(UsageError, match="out: is a link"):
        unpack(real, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "out"]


def test_no_member_gets_among_the_pictures(tmp_path):
    """A member named as a layout's folder was written over the blurred picture, or stood beside it."""
    for ext in ("png", "webp"):
        data = tmp_path / ext
        data.mkdir()
        with ShardWriter(data, "train-000000") as writer:
            writer.add("k", {"blur.png": b"1", "sharp.png": b"2", f"input.{ext}": b"3", "json": b"{}"})
            writer.commit({})
        (data / "train-000000.json").unlink()
        with pytest.raises(ShardError, match=rf"k\.input\.{ext}: its folder would be that of pictures"):
            unpack(data, tmp_path / "u")
        unpack(data, tmp_path / f"b{ext}", layout="basicsr")
        held = {p.parent.name: p.read_bytes() for p in (tmp_path / f"b{ext}" / "train").rglob("k.*")}
        assert held == {"lq": b"1", "gt": b"2", "input": b"3", "json": b"{}"}


def test_usage(tmp_path, real):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(real, tmp_path / "full")
    done = CliRunner().invoke(
        main, ["unpack", str(real), "--out", str(tmp_path / "o"), "--layout", "basicsr"]
    )
    assert done.exit_code == 0 and "9 pairs" in done.output and f"{tmp_path / 'o'}/train/lq" in done.output
    assert (
        CliRunner().invoke(main, ["unpack", str(tmp_path / "none"), "--out", str(tmp_path / "p")]).exit_code
        == 2
    )
