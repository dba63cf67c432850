"""`make --stills`: pictures in, shards out; counted, reproducible, explained."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from blursynth.checks.explain import explain
from blursynth.checks.verify import verify
from blursynth.run.make import make
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
