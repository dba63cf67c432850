"""Shards: equal content is equal bytes, whole or absent, readable by others, and read without trust."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blursynth.common.atomic import write_atomic
from blursynth.shards.picture import decode_image, encode_image, picture_fault
from blursynth.shards.schema import KEY
from blursynth.shards.shard import ShardError, ShardWriter, read_shard, read_sidecar, tar_matches
from blursynth.shards.tar import TarFault, walk

SIDE = {"recipe_sha256": "r", "plan_sha256": "p", "counts": {"written": 1, "rejected": {}}}


def write(out, name="train-000000", keys=("a", "b")):
    with ShardWriter(out, name) as w:
        for k in keys:
            w.add(k, {"blur.png": b"1" + k.encode(), "sharp.png": b"2", "json": b"{}"})
        return w.commit(SIDE)


def make_tar(path, members):
    """members: (name, bytes) or a TarInfo."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for m in members:
            if isinstance(m, tarfile.TarInfo):
                tar.addfile(m)
            else:
                info = tarfile.TarInfo(m[0])
                info.size = len(m[1])
                tar.addfile(info, io.BytesIO(m[1]))
    return path


def test_equal_samples_are_equal_bytes_wherever_and_whenever(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    a, b = write(tmp_path / "one"), write(tmp_path / "two")
    assert a == b
    tar = (tmp_path / "one" / "train-000000.tar").read_bytes()
    assert tar == (tmp_path / "two" / "train-000000.tar").read_bytes()
    assert (a["sha256"], a["bytes"], a["samples"]) == (hashlib.sha256(tar).hexdigest(), len(tar), 2)
    with tarfile.open(tmp_path / "one" / "train-000000.tar") as t:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in t} == {
            (0, 0, 0, "blursynth", "blursynth", 0o444)
        }
        assert t.getnames()[:3] == ["a.blur.png", "a.sharp.png", "a.json"]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    got = list(read_shard(tmp_path / "train-000000.tar"))
    assert [s["__key__"] for s in got] == ["a", "b"]
    assert got[1] == {"__key__": "b", "blur.png": b"1b", "sharp.png": b"2", "json": b"{}"}


def test_plain_webdataset_reads_it(tmp_path):
    wds = pytest.importorskip("webdataset")
    rgb = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    with ShardWriter(tmp_path, "train-000000") as w:
        w.add(
            "k",
            {
                "blur.png": encode_image(rgb, "png"),
                "sharp.png": encode_image(rgb, "png"),
                "json": b'{"schema": 1}',
            },
        )
        w.commit(SIDE)
    (s,) = list(wds.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert s["__key__"] == "k" and json.loads(s["json"]) == {"schema": 1}
    assert np.array_equal(decode_image(s["blur.png"]), rgb)


@pytest.mark.parametrize(("ext", "dtype"), [("png", np.uint8), ("webp", np.uint8), ("png", np.uint16)])
def test_images_are_lossless_and_in_rgb_order(ext, dtype):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, np.iinfo(dtype).max, (33, 47, 3), endpoint=True).astype(dtype)
    rgb[0, 0] = (np.iinfo(dtype).max, 1, 2)
    back = decode_image(encode_image(rgb, ext))
    assert back.dtype == dtype and np.array_equal(back, rgb)


def test_png_colour_order_as_another_decoder_sees_it():
    Image = pytest.importorskip("PIL.Image")
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert Image.open(io.BytesIO(encode_image(red, "png"))).getpixel((0, 0)) == (255, 0, 0)


def test_a_writer_that_does_not_commit_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="in the middle"), ShardWriter(tmp_path, "train-000000") as w:
        w.add("a", {"json": b"{}"})
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
        raise RuntimeError("in the middle")
    assert list(tmp_path.iterdir()) == []


def test_a_rewrite_never_has_an_old_sidecar_beside_a_new_tar(tmp_path, monkeypatch):
    """Dies between the two renames: what is left must not look finished."""
    write(tmp_path)
    monkeypatch.setattr(
        "blursynth.shards.shard.write_atomic", lambda *a: (_ for _ in ()).throw(OSError("died here"))
    )
    with pytest.raises(OSError, match="died here"):
        write(tmp_path, keys=("a", "b", "c"))
    assert len(list(read_shard(tmp_path / "train-000000.tar"))) == 3
    assert read_sidecar(tmp_path / "train-000000.json") is None


def test_a_shard_without_samples_has_a_sidecar_and_no_tar(tmp_path):
    write(tmp_path)
    with ShardWriter(tmp_path, "train-000000") as w:
        side = w.commit(SIDE)
    assert side["samples"] == 0 and side["sha256"] is None
    assert not (tmp_path / "train-000000.tar").exists()
    assert tar_matches(tmp_path / "train-000000.tar", read_sidecar(tmp_path / "train-000000.json"))


def test_a_tar_of_another_size_does_not_match_its_sidecar(tmp_path):
    side = write(tmp_path)
    path = tmp_path / "train-000000.tar"
    assert tar_matches(path, side)
    os.truncate(path, side["bytes"] - 512)
    assert not tar_matches(path, side)
    path.unlink()
    assert not tar_matches(path, side)


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("../../evil.json", b"{}")], "not KEY.EXTENSION"),
        ([("/etc/evil.json", b"{}")], "not KEY.EXTENSION"),
        ([("sub/a.json", b"{}")], "not KEY.EXTENSION"),
        ([("a b.json", b"{}")], "not KEY.EXTENSION"),
        ([("a", b"{}")], "not KEY.EXTENSION"),
        ([("a..json", b"{}")], "not KEY.EXTENSION"),
        ([("ключ.json", b"{}")], "not KEY.EXTENSION"),
        ([link("a.json", tarfile.SYMTYPE)], "link"),
        ([link("a.json", tarfile.LNKTYPE)], "link"),
        ([link("a.json", tarfile.CHRTYPE)], "link"),
        ([link("a.json", tarfile.DIRTYPE)], "link"),
        ([link("a.json", tarfile.FIFOTYPE)], "link"),
        ([("a.json", b"1"), ("b.json", b"2"), ("a.json", b"3")], "'a' stands twice"),
        ([("a.json", b"1"), ("a.json", b"3")], "a.json stands twice"),
    ],
)
def test_a_hostile_tar_is_refused_by_name(tmp_path, members, says):
    path = make_tar(tmp_path / "evil.tar", members)
    with pytest.raises(ShardError, match=says) as e:
        list(read_shard(path))
    assert str(path) in str(e.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.tar"], "nothing was extracted"


def test_a_huge_member_is_refused_before_it_is_read(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.size = 2**32
    (tmp_path / "bomb.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 10240)
    with pytest.raises(ShardError, match="claims 4294967296 bytes"):
        list(read_shard(tmp_path / "bomb.tar"))


def test_a_compressed_tar_is_not_opened(tmp_path):
    with tarfile.open(tmp_path / "bomb.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.json"))
    with pytest.raises(ShardError, match="not a readable tar"):
        list(read_shard(tmp_path / "bomb.tar"))


def test_a_shard_cut_anywhere_is_noticed(tmp_path):
    write(tmp_path, keys=("a", "b", "c"))
    path = tmp_path / "train-000000.tar"
    data = path.read_bytes()
    end = data.rstrip(b"\0").__len__()
    for cut in range(0, end, 256):
        path.write_bytes(data[:cut])
        with pytest.raises(ShardError):
            list(read_shard(path))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 6000))
def test_any_bytes_written_over_a_shard_read_safely(tmp_path_factory, noise, at):
    """Whatever a tar holds, reading it gives samples with safe keys or one ShardError."""
    tmp = tmp_path_factory.mktemp("fuzz")
    write(tmp)
    path = tmp / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[at : at + len(noise)] = noise
    path.write_bytes(bytes(data))
    try:
        for s in read_shard(path):
            assert KEY.fullmatch(s["__key__"])
    except ShardError as e:
        assert str(path) in str(e)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_decode_as_an_image_or_are_refused(data, with_header):
    data = encode_image(np.zeros((4, 4, 3), np.uint8), "png")[:40] + data if with_header else data
    try:
        assert decode_image(data, "x.png").shape[2] == 3
    except ShardError as e:
        assert "x.png" in str(e)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"samples": 1}', b'{"samples": "1", "bytes": 2}']
)
def test_a_torn_or_foreign_sidecar_is_named(tmp_path, text):
    (tmp_path / "train-000000.json").write_bytes(text)
    with pytest.raises(ShardError, match=r"train-000000.json"):
        read_sidecar(tmp_path / "train-000000.json")


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "a b", "é"])
def test_a_bad_key_is_never_written(tmp_path, key):
    with ShardWriter(tmp_path, "train-000000") as w, pytest.raises(ValueError, match="key"):
        w.add(key, {"json": b"{}"})


def test_what_the_walk_gave_before_a_fault_is_whole(tmp_path):
    """The property that salvage rests on: wherever a tar is cut, the members walked so far lie whole in what is left."""
    write(tmp_path, keys=("a", "b", "c"))
    data = (tmp_path / "train-000000.tar").read_bytes()
    with io.BytesIO(data) as whole:
        every = list(walk(whole))
    assert [m.name for m in every][:3] == ["a.blur.png", "a.sharp.png", "a.json"] and len(every) == 9
    for cut in range(0, len(data), 300):
        seen = []
        with contextlib.suppress(TarFault):
            for m in walk(io.BytesIO(data[:cut])):
                seen.append(m)
        assert seen == every[: len(seen)] and all(m.offset + m.size <= cut for m in seen)


def test_a_picture_damaged_anywhere_is_told_before_it_is_decoded():
    rng = np.random.default_rng(0)
    for ext in ("png", "webp"):
        data = encode_image(rng.integers(0, 256, (9, 7, 3), np.uint8), ext)
        assert picture_fault(data) is None
        for cut in range(len(data)):
            assert picture_fault(data[:cut]), (ext, cut)
    data = encode_image(rng.integers(0, 256, (9, 7, 3), np.uint8), "png")
    for at in range(16, len(data)):  # every chunk of a PNG carries its own sum
        assert picture_fault(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]), at
