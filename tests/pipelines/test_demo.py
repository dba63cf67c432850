"""The demonstration: its film is cut at its cuts and nowhere else, and the pair it shows has a sharp side."""

import io
import itertools
import json
import tarfile

import av
import numpy as np
import pytest

from pipelines.demo.__main__ import write_pair
from pipelines.demo.clip import cut_scenes, find_demo_clip


def frames(path):
    with av.open(str(path)) as film:
        return [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]


def test_the_scenes_hold_the_films_frames_and_begin_at_its_cuts(tmp_path):
    film = find_demo_clip()
    if film is None:
        pytest.skip("the demo's film is not installed")
    whole, scenes = frames(film), [frames(s) for s in cut_scenes(film, tmp_path)]
    assert [len(s) for s in scenes] == [30, 46, 61, 50, 55, 8]
    assert all(np.array_equal(a, b) for a, b in zip(whole, itertools.chain(*scenes), strict=True))
    change = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(whole)]
    assert sorted(np.argsort(change)[-5:] + 1) == list(np.cumsum([len(s) for s in scenes[:-1]]))


def test_the_pair_shown_is_held_out_and_its_film_stands_still(tmp_path):
    def shard(name, *samples):
        with tarfile.open(tmp_path / name, "w") as tar:
            for key, shake, motion in samples:
                about = {"key": key, "exposure": {"shake": {"px": shake}}, "flow": {"p95_px": motion}}
                for end, data in (
                    ("blur.png", key + "b"),
                    ("sharp.png", key + "s"),
                    ("json", json.dumps(about)),
                ):
                    member = tarfile.TarInfo(f"{key}.{end}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data.encode()))

    shard("train-0.tar", ("trained", 9, 0))
    shard("val-0.tar", ("little", 3, 0.5), ("moves", 8, 20))
    shard("val-1.tar", ("chosen", 5, 1.9))
    blurred, sharp = write_pair(tmp_path, tmp_path)
    assert (blurred.read_text(), sharp.read_text()) == ("chosenb", "chosens")
