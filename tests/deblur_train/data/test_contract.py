"""The consumer's side of the shard contract: a hand-made schema-1 shard is read, and its JSON is checked key by key."""

import copy
import json

import numpy as np
import pytest

from blursynth.shards.picture import decode_image
from blursynth.shards.schema import REQUIRED, problem_with
from blursynth.shards.shard import ShardWriter
from deblur_train.data.index import DataError, index_shard, index_split, require_samples
from deblur_train.data.pictures import DecodeError, ShardReader, decode_rgb
from tests.helpers.pair_trees import turned
from tests.helpers.train_shards import encode, meta, sample, scene, write_tar


@pytest.mark.parametrize("ext", [".png", ".webp"])
def test_a_hand_made_shard_is_read(tmp_path, ext):
    if ext == ".webp":
        import cv2

        blur, sharp = scene(1)
        coded = [
            cv2.imencode(".webp", x[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
            for x in (blur, sharp)
        ]
        members = [
            ("a_B-1.blur.webp", coded[0]),
            ("a_B-1.sharp.webp", coded[1]),
            ("a_B-1.json", json.dumps(meta("a_B-1")).encode()),
        ]
    else:
        members = sample("a_B-1", 1)
    write_tar(tmp_path / "train-000000.tar", members)
    index = index_split(tmp_path, "train")
    assert not index.faults
    [s] = index.samples
    assert (s.key, s.clip, s.crf, s.linear) == ("a_B-1", "clip", "srgb", None)
    blur, sharp = ShardReader(index.paths).pair(s)
    want_blur, want_sharp = scene(1)
    np.testing.assert_array_equal(blur, want_blur)  # RGB: a swap of channels would show
    np.testing.assert_array_equal(sharp, want_sharp)
    assert index_split(tmp_path, "val").samples == []


EVERY_KEY = [(group, name) for group, names in REQUIRED.items() for name in names]


def test_the_required_keys_are_those_of_the_design():
    given = meta("k")
    assert set(REQUIRED[""]) == set(given)
    for group in ("source", "exposure", "camera", "flow", "quality"):
        assert set(REQUIRED[group]) == set(given[group])


@pytest.mark.parametrize(("group", "name"), EVERY_KEY)
def test_every_required_key_is_missed(group, name):
    given = meta("k")
    assert problem_with(given, "k") is None
    broken = copy.deepcopy(given)
    del (broken[group] if group else broken)[name]
    assert problem_with(broken, "k") is not None


def test_keys_may_be_added_but_not_another_schema():
    given = meta("k")
    given["later"] = 1
    given["flow"]["later"] = 2
    assert problem_with(given, "k") is None
    assert "schema" in problem_with(given | {"schema": 2}, "k")
    assert "another sample" in problem_with(given, "other")
    assert problem_with([], "k") is not None
    assert problem_with(given | {"flow": 3}, "k") is not None


def test_members_may_stand_in_any_order_and_more_may_be_added(tmp_path):
    members = [*reversed(sample("k", 1)), ("k.depth.png", b"x")]
    [s], faults = index_shard(write_tar(tmp_path / "train-000000.tar", members), 0)
    assert s.key == "k" and not faults


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_all_readers_give_the_same_pixels(orientation):
    """16 bits are rounded, and an orientation in the metadata turns nothing: the twin may have none."""
    deep = np.random.default_rng(0).integers(0, 65536, (8, 12, 3)).astype(np.uint16)
    data = turned(encode(deep), orientation)
    want = ((decode_image(data).astype(np.uint32) + 128) // 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_rgb(data), want)
    np.testing.assert_array_equal(want, np.rint(deep / 257))


def test_linear16_is_read(tmp_path):
    write_tar(tmp_path / "train-000000.tar", sample("k", 1, linear=True))
    index = index_split(tmp_path, "train")
    linear = ShardReader(index.paths).linear(index.samples[0])
    blur, _ = scene(1)
    assert linear.dtype == np.uint16
    np.testing.assert_array_equal(linear, ((blur / 255.0) ** 2.2 * 65535).astype(np.uint16))


@pytest.mark.parametrize(
    ("files", "unfinished"),
    [
        ({}, False),  # shards by hand
        ({"recipe.toml": "", "dataset.json": '{"complete": true}'}, False),
        ({"recipe.toml": "", "dataset.json": '{"complete": false}'}, True),
        ({"recipe.toml": ""}, True),  # make was killed, or is at work
        ({"dataset.json": "torn"}, False),
    ],
)
def test_a_set_that_was_not_finished_says_so(tmp_path, files, unfinished):
    write_tar(tmp_path / "train-000000.tar", sample("k", 1))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    told = index_split(tmp_path, "train").report()
    assert [line for line in told if "run the same make again" in line] == told and len(told) == unfinished


def test_hostile_and_broken_members_are_named_and_left_out(tmp_path):
    good = sample("good", 1)
    blur, sharp = scene(2)
    members = [
        *good,
        ("../../evil.blur.png", b"x"),
        ("a b.json", b"{}"),
        ("noblur.sharp.png", encode(sharp)),
        ("noblur.json", json.dumps(meta("noblur")).encode()),
        ("nojson.blur.png", encode(blur)),
        ("nojson.sharp.png", encode(sharp)),
        ("badjson.blur.png", encode(blur)),
        ("badjson.sharp.png", encode(sharp)),
        ("badjson.json", b"{" * 100_000),
        good[0],
    ]
    samples, faults = index_shard(write_tar(tmp_path / "train-000000.tar", members), 0)
    assert [s.key for s in samples] == ["good"]
    reasons = " | ".join(f"{f.where} {f.reason}" for f in faults)
    for word in ("evil", "a b", "noblur", "nojson", "badjson", "twice"):
        assert word in reasons
    assert list(tmp_path.iterdir()) == [tmp_path / "train-000000.tar"], "nothing is ever unpacked"


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.4, 0.9])
def test_a_truncated_shard_keeps_its_whole_samples(tmp_path, keep):
    path = write_tar(tmp_path / "train-000000.tar", [m for i in range(4) for m in sample(f"s{i}", i)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    samples, faults = index_shard(path, 0)
    assert len(samples) == int(4 * keep)
    assert any("train-000000.tar" in f.where for f in faults)
    reader = ShardReader([path])
    for s in samples:
        reader.pair(s)


def test_damaged_images_raise_and_never_give_pixels(tmp_path):
    blur, sharp = scene(3)
    coded = bytearray(encode(blur))
    coded[len(coded) // 2] ^= 0xFF
    other_size = encode(scene(3, 40, 40)[1])
    j = lambda k: (f"{k}.json", json.dumps(meta(k)).encode())  # noqa: E731
    members = [
        *[("flip.blur.png", bytes(coded)), ("flip.sharp.png", encode(sharp)), j("flip")],
        *[("cut.blur.png", encode(blur)[:-20]), ("cut.sharp.png", encode(sharp)), j("cut")],
        *[("text.blur.png", b"hello"), ("text.sharp.png", encode(sharp)), j("text")],
        *[("size.blur.png", encode(blur)), ("size.sharp.png", other_size), j("size")],
    ]
    path = write_tar(tmp_path / "train-000000.tar", members)
    samples, _ = index_shard(path, 0)
    assert len(samples) == 4
    reader = ShardReader([path])
    for s in samples:
        with pytest.raises(DecodeError):
            reader.pair(s)


@pytest.mark.parametrize(
    ("rejected", "other", "words"),
    [
        ({"gate:soft": 3}, True, ["every train sample was rejected (gate:soft 3)", "looser --gate"]),
        ({"cut": 2}, False, ["rejected (cut 2)", "shorter --window"]),
        (None, True, ["holds val shards only", "more clips", "smaller --val-fraction"]),
        (None, False, ["holds no train-*.tar", "make VIDEO"]),
    ],
)
def test_an_empty_train_split_is_told_with_what_helps(tmp_path, rejected, other, words):
    if rejected is not None:
        with ShardWriter(tmp_path, "train-000000") as writer:
            writer.commit(
                {"recipe_sha256": "r", "plan_sha256": "p", "counts": {"written": 0, "rejected": rejected}}
            )
    if other:
        (tmp_path / "val-000000.tar").write_bytes(b"")
    with pytest.raises(DataError) as e:
        require_samples(index_split(tmp_path, "train"), tmp_path, "train")
    assert all(w in str(e.value) for w in words), str(e.value)
