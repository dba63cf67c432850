"""The plan: deterministic, complete, within the clips, light at a million samples."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blursynth.exposure.shake import border, draw_path
from blursynth.recipe import Recipe
from blursynth.run.packing import sample_bytes
from blursynth.run.plan import key_prefixes, make_plan, tile_corners
from blursynth.shards.shard import KEY
from blursynth.sources.find import Reject
from tests.helpers.make_fakes import clip


def plan_of(clips, recipe=None, val=(), **kw):
    return make_plan(
        clips, {c.rel: "val" if c.rel in val else "train" for c in clips}, recipe or Recipe(), **kw
    )


def windows(plan):
    return [(r.source.clip.rel, w) for t in plan.tasks("out") for r in t.runs for w in r.windows]


def test_windows_tile_the_clip_at_the_stride():
    plan = plan_of([clip("a", 30)], Recipe(window="9"))
    assert sorted((w.first, w.last, w.target) for _, w in windows(plan)) == [
        (0, 8, 4),
        (9, 17, 13),
        (18, 26, 22),
    ]
    assert plan.samples == plan.windows == 3
    overlapping = plan_of([clip("a", 30)], Recipe(window="9", stride=4))
    assert sorted(w.first for _, w in windows(overlapping)) == [0, 4, 8, 12, 16, 20]


def test_a_clip_of_exactly_one_window_gives_one_and_a_shorter_one_is_named():
    plan = plan_of([clip("exact", 9), clip("short", 8)])
    assert [(rel, w.first, w.last) for rel, w in windows(plan)] == [("exact", 0, 8)]
    assert plan.short == [Reject("short", "too short", "8 frames, a window needs 9")]


def test_drawn_windows_are_within_the_range_varied_and_reproducible():
    recipe = Recipe(window="7-13", seed=3)
    first, again = plan_of([clip("a", 2000)], recipe), plan_of([clip("a", 2000)], recipe)
    lengths = [w.frames for _, w in windows(first)]
    assert set(lengths) == set(range(7, 14))
    assert windows(first) == windows(again)
    assert windows(first) != windows(plan_of([clip("a", 2000)], Recipe(window="7-13", seed=4)))
    rows = sorted((w.first, w.last) for _, w in windows(first))
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(rows)), (
        "without a stride windows follow one another"
    )


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    window=st.sampled_from(["3", "9", "5-11"]),
    stride=st.sampled_from([None, 1, 4, 20]),
    shard=st.sampled_from([None, 1, 7, 50]),
    most=st.sampled_from([None, 1, 5, 40]),
    tile=st.sampled_from([None, 32]),
)
def test_every_window_stands_in_exactly_one_shard_and_inside_its_clip(
    frames, window, stride, shard, most, tile
):
    clips = [clip(f"c{i}", n, size=(100, 70)) for i, n in enumerate(frames)]
    recipe = Recipe(window=window, stride=stride, shard_samples=shard, max_samples=most, tile=tile)
    val = {"c0"} if len(clips) > 1 else set()
    plan = plan_of(clips, recipe, val)
    got = windows(plan)
    assert len(got) == len(set(got)) == plan.windows
    assert sum(t.samples for t in plan.tasks(".")) == plan.samples == sum(w.tiles for _, w in got)
    assert most is None or plan.samples <= most
    by_rel = {c.rel: c.info.frames for c in clips}
    assert all(0 <= w.first < w.last < by_rel[rel] and w.tiles >= 1 for rel, w in got)
    for t in plan.tasks("."):
        assert {r.source.split for r in t.runs} == {t.split} and t.shard.startswith(t.split)
        for r in t.runs:
            assert [w.first for w in r.windows] == sorted(w.first for w in r.windows), "one forward pass"
    full = plan_of(clips, recipe.model_copy(update={"max_samples": None}), val)
    assert plan.samples == min(most or full.samples, full.samples)
    names = plan.shards
    assert names == sorted(names) and len(names) == len(set(names))
    sizes = shard_sizes(plan)
    tiles = max((w.tiles for _, w in got), default=0)
    assert list(sizes) == names
    if shard:
        assert all(n <= max(shard, tiles) for n in sizes.values())
    else:
        assert all(n >= 50 or n == plan.split_samples[name.partition("-")[0]] for name, n in sizes.items())


def test_max_samples_is_spread_over_the_clips_and_along_each():
    clips = [clip("long", 9000), clip("mid", 900), clip("tiny", 18)]
    plan = plan_of(clips, Recipe(max_samples=102))
    count = {rel: sum(r == rel for r, _ in windows(plan)) for rel in ("long", "mid", "tiny")}
    assert count == {"tiny": 2, "mid": 50, "long": 50}
    firsts = sorted(w.first for rel, w in windows(plan) if rel == "long")
    assert firsts[0] < 200 and firsts[-1] > 8700 and max(np.diff(firsts)) < 2 * min(np.diff(firsts))


def shard_sizes(plan):
    sizes = Counter()
    for t in plan.tasks("."):
        sizes[t.shard] += t.samples
    return sizes


@pytest.mark.parametrize(
    ("size", "options", "count"),
    [
        ((1280, 720), {}, 8),  # 1000 pairs of 3.1 MB
        ((3840, 2160), {}, 20),  # of 28 MB: 50 pairs a shard, 1.4 GB
        ((320, 180), {}, 1),
        ((1280, 720), {"store": "linear16"}, 19),
        ((1280, 720), {"format": "webp"}, 6),
    ],
    ids=str,
)
def test_shards_have_a_useful_size_by_bytes_and_are_alike(size, options, count):
    plan = plan_of([clip(f"c{i}", 900, size=size) for i in range(10)], Recipe(**options))
    sizes = shard_sizes(plan)
    assert plan.samples == 1000 and len(sizes) == count
    assert max(sizes.values()) - min(sizes.values()) <= 1
    expected = sample_bytes(plan.clips[0], plan.recipe) * 1000 / count
    assert 256e6 < expected < 1e9 or min(sizes.values()) == 50 or count == 1


def test_few_samples_are_one_shard_a_split_and_still_work_for_many_workers():
    clips = [clip(f"c{i}", 9 * 16, size=(1280, 720)) for i in range(4)]
    plan = plan_of(clips, Recipe(max_samples=48), val={"c3"})
    assert plan.shards == ["train-000000", "val-000000"]
    tasks = list(plan.tasks("."))
    assert 16 <= len(tasks) <= 48 and max(t.samples for t in tasks) <= 4
    assert [(t.shard, t.piece) for t in tasks] == sorted((t.shard, t.piece) for t in tasks)
    assert {(t.shard, t.pieces) for t in tasks} == {
        (s, n) for s, n in Counter(t.shard for t in tasks).items()
    }


def test_a_task_is_half_a_minute_of_work_however_large_its_shard():
    tiny = plan_of([clip(f"c{i}", 9000, size=(1280, 720)) for i in range(4)], Recipe(tile=64))
    assert max(shard_sizes(tiny).values()) > 9000
    assert max(sum(len(r.windows) for r in t.runs) for t in tiny.tasks(".")) <= 24
    large = plan_of([clip(f"c{i}", 9000, size=(3840, 2160)) for i in range(4)], Recipe())
    assert max(t.samples for t in large.tasks(".")) <= 2


def test_a_shard_mixes_clips_of_one_split():
    clips = [clip(f"c{i}", 900) for i in range(8)]
    plan = plan_of(clips, Recipe(shard_samples=40), val={"c0", "c1"})
    clips_of = {}
    for t in plan.tasks("."):
        clips_of.setdefault(t.shard, set()).update(r.source.clip.rel for r in t.runs)
    mixed = [len(rels) for rels in clips_of.values()]
    assert np.mean(mixed) >= 2 and max(mixed) >= 4
    assert set().union(*(rels for s, rels in clips_of.items() if s.startswith("val"))) == {"c0", "c1"}


def test_overlapping_windows_stay_together_so_that_they_share_flows():
    plan = plan_of([clip(f"c{i}", 200) for i in range(4)], Recipe(window="9", stride=1, shard_samples=16))
    lengths = [len(r.windows) for t in plan.tasks(".") for r in t.runs]
    assert np.mean(lengths) >= 7


def test_the_order_of_the_clips_and_the_place_they_lie_in_change_nothing():
    clips = [clip(f"c{i}", 100) for i in range(5)]
    moved = [clip(f"c{i}", 100, path="/elsewhere") for i in reversed(range(5))]
    a, b = plan_of(clips), plan_of(moved)
    assert a.sha256 == b.sha256

    def strip(p):
        return [(t.shard, [(r.source.key(w), w) for r in t.runs for w in r.windows]) for t in p.tasks(".")]

    assert strip(a) == strip(b)


@pytest.mark.parametrize(
    "change",
    [{"recipe": Recipe(seed=1)}, {"hashes": {"a": "f" * 64}}, {"files": {"crf": "0"}}, {"val": {"a"}}],
    ids=str,
)
def test_all_that_decides_bytes_is_in_the_plan_hash(change):
    clips = [clip("a"), clip("b")]
    assert plan_of(clips).sha256 != plan_of(clips, **change).sha256


def test_keys_are_safe_unique_and_short_enough_for_a_tar():
    names = [
        "GOPR0372_07_00",
        "my clip",
        "my-clip",
        "Zoë",
        "日本",
        "a.b",
        "A.b",
        "x" * 300,
        "x" * 299,
        "..",
        "-rf",
    ]
    prefixes = key_prefixes([(n, n) for n in names])
    assert prefixes["GOPR0372_07_00"] == "GOPR0372_07_00", "a plain name stays as it is"
    assert len({p.lower() for p in prefixes.values()}) == len(names)
    assert all(KEY.fullmatch(p) and len(p) <= 72 for p in prefixes.values())
    assert prefixes["Zoë"].startswith("Zoe-")
    twins = key_prefixes([("0000", "train/0000"), ("0000", "val/0000")])
    assert twins["train/0000"] != twins["val/0000"] and all(p.startswith("0000-") for p in twins.values())


def test_keys_are_unique_over_a_plan_with_odd_names():
    clips = [clip("a", 100), clip("a_000000", 100), clip("a_000000_09", 100), clip("a", 100, rel="x/a")]
    plan = plan_of(clips, Recipe(window="5-9", stride=2))
    keys = [r.source.key(w) for t in plan.tasks(".") for r in t.runs for w in r.windows]
    assert len(keys) == len(set(keys)) > 100 and all(KEY.fullmatch(k) for k in keys)


def test_tiles_are_a_centred_grid_without_overlap():
    assert tile_corners(100, 70, 32) == [(2, 3), (34, 3), (66, 3), (2, 35), (34, 35), (66, 35)]
    assert tile_corners(64, 31, 32) == []


def test_tiles_stay_clear_of_the_sides_that_a_shaking_camera_brings_in():
    for px in (1.0, 8.0, 30.0):
        corners = tile_corners(640, 360, 64, (0.0, px))
        assert corners
        for seed in range(20):
            left, top, right, bottom = border(
                draw_path(np.random.default_rng(seed), px, 640, 360, 0.0), 640, 360
            )
            for x, y in corners:
                assert left <= x and top <= y and x + 64 <= 640 - right and y + 64 <= 360 - bottom
    assert tile_corners(64, 64, 64, (0.0, 4.0)) == []
    plan = plan_of([clip("a", 90, size=(100, 70)), clip("small", 90, size=(30, 30))], Recipe(tile=32))
    assert plan.samples == 60 and plan.short == [
        Reject("small", "too small", "30x30 is smaller than a tile of 32")
    ]


def test_sources_below_16_px_a_side_are_left_out_by_name():
    plan = plan_of([clip("thin", 90, size=(400, 15)), clip("a", 90, size=(16, 16))], Recipe())
    assert plan.short == [Reject("thin", "too small", "400x15 px; a source needs 16 px a side")]


def test_a_blur_that_is_asked_for_is_looked_for_in_as_many_frames_as_allowed():
    plan = plan_of([clip("a", 90), clip("b", 10)], Recipe(window="5-13", blur_px="4-8"))
    assert {(rel, w.frames) for rel, w in windows(plan)} == {("a", 13), ("b", 10)}


def test_a_million_samples_are_planned_in_seconds_and_megabytes():
    """In a process of its own, so that the memory measured is the plan's."""
    code = (
        "import time, resource, sys; sys.path.insert(0, 'tests')\n"
        "from tests.helpers.make_fakes import clip; from blursynth.run.plan import make_plan; from blursynth.recipe import Recipe\n"
        "clips = [clip(f'c{i}', 9000) for i in range(1000)]; base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "t = time.process_time(); p = make_plan(clips, {c.rel: 'train' for c in clips}, Recipe(window='7-11'))\n"
        "n = sum(t.samples for t in p.tasks('.'))\n"
        "print(n, p.samples, time.process_time() - t, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    n, samples, seconds, megabytes = int(out[0]), int(out[1]), float(out[2]), float(out[3])
    assert n == samples > 990_000
    assert seconds < 10 and megabytes < 300


@given(
    st.lists(st.integers(9, 60), min_size=2, max_size=12), st.integers(1, 15), st.integers(0, 5), st.data()
)
def test_few_samples_keep_both_splits_alive(lengths, most, seed, data):
    clips = [clip(f"c{i}", n) for i, n in enumerate(lengths)]
    val = data.draw(st.sets(st.integers(0, len(clips) - 1), min_size=1, max_size=len(clips) - 1))
    splits = {c.rel: "val" if i in val else "train" for i, c in enumerate(clips)}
    plan = make_plan(clips, splits, Recipe(max_samples=most, seed=seed))
    every = make_plan(clips, splits, Recipe(seed=seed))
    assert plan.samples == min(most, every.samples) == sum(plan.split_samples.values())
    if most >= 2:
        assert set(plan.split_samples) == {"train", "val"}
    for split, n in plan.split_samples.items():
        assert n <= every.split_samples[split]


@given(st.integers(3, 80), st.integers(0, 90), st.integers(0, 90), st.sampled_from(["5", "3-7"]))
def test_windows_stay_within_the_frames_asked_for(count, a, b, window):
    a, b = sorted((a, b))
    plan = make_plan([clip("c", count)], {"c": "train"}, Recipe(frames=f"{a}-{b}", window=window))
    rows = [w for _, w in windows(plan)] if plan.samples else []
    assert all(a <= w.first and w.last <= min(b, count - 1) for w in rows)
    if window == "5":
        assert len(rows) == max(min(b, count - 1) - a + 1, 0) // 5
        assert bool(plan.short) == (not rows)


@pytest.mark.parametrize("bad", ["5", "9-3", "a-b", "-3-9", ""])
def test_frames_are_two_numbers(bad):
    with pytest.raises(ValidationError, match="A-B"):
        Recipe(frames=bad)
