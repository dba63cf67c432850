"""`make --stills`: pictures in, shards out; counted, reproducible, explained."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from blursynth.checks.explain import explain
from blursynth.checks.verify import verify
from blursynth.run.make import make
from blursynth.run.task import make_shard
from blursynth.shards.schema import parse_sample_json
from blursynth.shards.shard import read_shard
from blursynth.sources.find import SourceError, find_clips
from tests.helpers.films import moving, texture, write_frames, write_video

OPTIONS = {
    "stills": True, "shake": "4-10", "tile": 64, "workers": 1, "quiet": True,
    "gate": "off", "highlights": "off", "noise": "off",
}  # fmt: skip


@pytest.fixture
def album(tmp_path):
    """Pictures of any name and size, one of them twice, a torn one, one that is too small, a film among them."""
    folder = tmp_path / "album"
    folder.mkdir()
    for n, size in enumerate(((200, 160), (160, 200), (240, 180), (200, 160))):
        cv2.imwrite(str(folder / f"IMG {n}.png"), texture(size, seed=n)[..., ::-1])
    (folder / "copy.png").write_bytes((folder / "IMG 0.png").read_bytes())
    whole = cv2.imencode(".jpg", texture((200, 200)))[1].tobytes()
    (folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "no.jpg").write_bytes(b"nothing")
    cv2.imwrite(str(folder / "tiny.png"), texture((60, 200)))
    write_video(folder / "film.mp4", moving(6))
    return folder


def samples(data):
    out = {}
    for tar in sorted(data.glob("*.tar")):
        for s in read_shard(tar):
            assert s["__key__"] not in out, "keys are unique over the data set"
            out[s["__key__"]] = s
    return out


def test_each_picture_gives_its_samples_and_what_does_not_is_named(album, tmp_path):
    summary = make(album, tmp_path / "d", "realistic", per_still=3, **OPTIONS)
    assert summary.samples == 12 and dict(summary.rejects) == {"unreadable": 3}
    reasons = {r.reason for r in summary.clip_rejects}
    assert reasons == {"not-a-still", "unreadable", "too small", "copy"}
    found = samples(tmp_path / "d")
    assert len(found) == 12
    for key, s in found.items():
        meta = parse_sample_json(s["json"])
        raw = json.loads(s["json"])
        assert raw["source"]["kind"] == "still" and raw["key"] == key
        assert (meta.source.first, meta.source.target, meta.source.last) == (0, 0, 0)
        assert raw["tile"]["size"] == 64 and 4 <= raw["exposure"]["shake"]["px"] <= 11
    assert verify(tmp_path / "d").exit_code == 0


def test_a_sample_does_not_depend_on_workers_or_on_how_many_there_are(album, tmp_path):
    make(album, tmp_path / "a", "realistic", per_still=2, **OPTIONS)
    make(album, tmp_path / "b", "realistic", per_still=2, **(OPTIONS | {"workers": 2}))
    one, two = samples(tmp_path / "a"), samples(tmp_path / "b")
    assert one == two


def test_explain_makes_a_still_again(album, tmp_path):
    make(album, tmp_path / "d", "realistic", per_still=2, **OPTIONS)
    key = sorted(samples(tmp_path / "d"))[-1]
    told = explain(tmp_path / "d", key)
    assert told.rebuilt, told.note
    assert [f["weight"] for f in told.frames] == [1.0]


def test_a_folder_of_numbered_pictures_is_a_film_unless_asked(tmp_path):
    folder = write_frames(tmp_path / "shots" / "a", moving(5, (96, 64)))
    clips, _ = find_clips([tmp_path])
    assert [(c.rel, c.info.kind, c.info.frames) for c in clips] == [("shots/a", "frames", 5)]
    clips, rejects = find_clips([tmp_path], stills=True)
    assert [c.info.kind for c in clips] == ["still"] * 5 and not rejects
    one, _ = find_clips([sorted(folder.iterdir())[0]], stills=True)
    assert one[0].info.frames == 1
    with pytest.raises(SourceError, match="--stills"):
        find_clips([sorted(folder.iterdir())[0]])


def test_of_finished_pairs_only_the_sharp_side_is_a_source(tmp_path):
    for side in ("blur", "sharp"):
        write_frames(tmp_path / "set" / "a" / side, moving(4, (96, 64)))
    clips, rejects = find_clips([tmp_path], stills=True)
    assert {c.rel.split("/")[2] for c in clips} == {"sharp"} and len(clips) == 4
    assert [r.reason for r in rejects] == ["pairs"]


def test_pictures_that_cannot_be_told_from_each_other_by_name_keep_their_keys(tmp_path):
    for where in ("one", "two"):
        (tmp_path / "src" / where).mkdir(parents=True)
        for n in range(2):
            seed = n + 10 * (where == "two")
            cv2.imwrite(str(tmp_path / "src" / where / f"{n}.png"), texture((120, 120), seed=seed))
            cv2.imwrite(str(tmp_path / "src" / where / f"{n}.bmp"), texture((120, 120), seed=seed + 5))
    make(tmp_path / "src", tmp_path / "d", "realistic", per_still=2, **OPTIONS)
    assert len(samples(tmp_path / "d")) == 16


def test_whole_pictures_keep_their_size_and_say_their_border(album, tmp_path):
    make(album, tmp_path / "d", "realistic", **(OPTIONS | {"tile": None, "max_samples": 4}))
    for s in samples(tmp_path / "d").values():
        meta = json.loads(s["json"])
        assert "tile" not in meta and max(meta["exposure"]["shake"]["border"]) > 0
        blur = cv2.imdecode(np.frombuffer(s["blur.png"], np.uint8), cv2.IMREAD_COLOR)
        assert min(blur.shape[:2]) >= 160 or min(blur.shape[:2]) == 60


def test_layers_come_from_the_same_split_and_explain_makes_them_again(album, tmp_path):
    (album / "tiny.png").unlink()  # gives layers and no sample
    options = OPTIONS | {"layers": "1-3", "val_fraction": 0.5, "per_still": 3, "labels": "flow,mask"}
    make(album, tmp_path / "d", "realistic", **options)
    found = samples(tmp_path / "d")
    split = {
        json.loads(s["json"])["source"]["sha256"]: tar.name[:3]
        for tar in sorted((tmp_path / "d").glob("*.tar"))
        for s in read_shard(tar)
    }
    assert set(split.values()) == {"tra", "val"}
    others = 0
    for s in found.values():
        source = json.loads(s["json"])["source"]
        assert 1 <= len(source["layers"]) <= 3
        assert {split[d["sha256"]] for d in source["layers"]} == {split[source["sha256"]]}
        others += sum(d["sha256"] != source["sha256"] for d in source["layers"])
    assert others > 0
    for key in sorted(found)[::4]:
        told = explain(tmp_path / "d", key)
        assert told.rebuilt, told.note
    assert verify(tmp_path / "d").exit_code == 0
    make(album, tmp_path / "two", "realistic", **(options | {"workers": 2}))
    assert samples(tmp_path / "two") == found


def test_a_lone_still_gives_its_own_layers(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), texture((200, 160), seed=3))
    make(tmp_path / "a.png", tmp_path / "d", "realistic", **(OPTIONS | {"layers": "2"}))
    (only,) = samples(tmp_path / "d").values()
    source = json.loads(only["json"])["source"]
    assert [d["sha256"] for d in source["layers"]] == [source["sha256"]] * 2


def test_a_donor_that_changes_during_the_run_fails_its_shards(album, tmp_path):
    for torn in ("torn.jpg", "no.jpg", "copy.png", "tiny.png", "film.mp4"):
        (album / torn).unlink()
    changed = album / "IMG 3.png"

    def change(task):
        changed.write_bytes(cv2.imencode(".png", texture((200, 160), seed=77))[1].tobytes())
        return make_shard(task)

    options = OPTIONS | {"layers": "8", "val_fraction": 0.0, "shard_samples": 1}
    summary = make(album, tmp_path / "d", "realistic", task=change, **options)
    assert summary.exit_code == 1 and len(summary.failed) == 4, "three of them only through their layers"
    assert all("changed during the run" in why for why in summary.failed.values())


def test_a_donor_that_is_gone_is_named_by_explain(album, tmp_path):
    make(album, tmp_path / "d", "realistic", **(OPTIONS | {"layers": "3"}))
    sources = {key: json.loads(s["json"])["source"] for key, s in samples(tmp_path / "d").items()}
    key, other = next(
        (key, d) for key, s in sources.items() for d in s["layers"] if d["sha256"] != s["sha256"]
    )
    (album / other["path"]).unlink()
    (album / "copy.png").unlink()
    told = explain(tmp_path / "d", key)
    assert told.rebuilt is None and other["path"] in told.note
