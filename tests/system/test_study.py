"""benchmarks/study.py: its statistics against known answers, the equal exposure of its arms, and its resume."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.helpers.benchmark import benchmark


@pytest.fixture(scope="module")
def study():
    pytest.importorskip("skimage")
    pytest.importorskip("torch")
    with benchmark("study") as script:
        yield script


@pytest.fixture(scope="module")
def data(study):
    return importlib.import_module("study_data")


@pytest.fixture(scope="module")
def stats(study):
    return importlib.import_module("study_stats")


def crossed(rng: np.random.Generator, seeds: int, pictures: int, spread: tuple[float, float, float]):
    """Differences with an effect of the seed, one of the picture and a rest, of these deviations; mean 1."""
    s, p, rest = spread
    return (
        1
        + s * rng.standard_normal((seeds, 1))
        + p * rng.standard_normal((1, pictures))
        + rest * rng.standard_normal((seeds, pictures))
    )


def test_equal_differences_have_an_interval_of_no_width(stats):
    assert stats.interval([np.full((3, 5), 0.7), np.full((3, 2), 0.7)]) == pytest.approx((0.7, 0.7, 0.7))


def test_the_sets_of_a_group_weigh_alike_however_many_pairs_they_have(stats):
    mean, _, _ = stats.interval([np.full((2, 10), 1.0), np.full((2, 1), 3.0)])
    assert mean == pytest.approx(2.0)


def test_the_interval_of_independent_pictures_is_the_normal_one(stats):
    d = np.random.default_rng(1).standard_normal((1, 60))
    mean, low, high = stats.interval([d])
    assert mean == pytest.approx(d.mean())
    assert high - low == pytest.approx(2 * 1.96 * d.std(ddof=1) / 60**0.5, rel=0.05)


def test_seeds_that_differ_widen_the_interval_and_pictures_alone_do_not_hide_it(stats):
    """Every picture differs by the same within a seed: only seeds tell how far the mean may lie."""
    seeds = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    _, low, high = stats.interval([np.repeat(seeds[:, None], 50, 1)])
    assert high - low == pytest.approx(2 * 1.96 * seeds.std(ddof=1) / 5**0.5, rel=0.1)


@pytest.mark.parametrize("spread", [(0.3, 0.3, 0.3), (0.0, 0.5, 0.2), (0.5, 0.1, 0.2)])
def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(stats, spread):
    """Seven seeds, thirty pictures, 150 studies; few seeds have heavier tails than the bootstrap knows of."""
    rng = np.random.default_rng(3)
    hits = 0
    for i in range(150):
        _, low, high = stats.interval([crossed(rng, 7, 30, spread)], draws=400, seed=i)
        hits += low <= 1 <= high
    assert 0.85 <= hits / 150 <= 0.99


def test_differences_are_of_the_seeds_that_both_arms_have(stats):
    def run(arm, seed, gain):
        return stats.Run(arm, seed, "s", "t", "c", 1.0, {"x": 20.0}, {"x": [gain, gain + 1]}, 40.0)

    f = {0: run("f", 0, 1.0), 2: run("f", 2, 2.0)}
    a = {2: run("a", 2, 0.5), 3: run("a", 3, 9.0)}
    seeds, (d,) = stats.differences(f, a, ["x"])
    assert seeds == [2]
    assert d.tolist() == [[1.5, 1.5]]


# Equal exposure


def test_means_of_frames_expose_as_long_as_the_flow_s_exposure(data):
    for kind in ("display", "linear"):
        w = data.mean_weights(kind)
        assert w.sum() == pytest.approx(1) and np.allclose(w, w[::-1]) and w.min() >= 0
        assert data.variance(w) == pytest.approx(data.VARIANCE, rel=1e-6)
    for options in data.ARMS.values():
        if "mean" not in options:
            length = float(options["duty"]) * (data.WINDOW - 1)
            assert length**2 / 12 == pytest.approx(data.VARIANCE, rel=1e-4)
            assert options.get("blur_px") is None  # it would shorten the exposure


@pytest.mark.parametrize("arm", ["a display mean", "b linear mean", "c + interpolation"])
def test_a_moving_spot_is_smeared_by_the_same_variance_in_every_arm(data, arm):
    """The picture itself: a faint broad spot at 2 px a frame, faint so that codes are nearly linear in light."""
    from blursynth.pairs.synthesis import Synthesizer
    from blursynth.recipe import Recipe

    h, w, step, options = 96, 160, 2.0, data.ARMS[arm]
    y, x = np.mgrid[:h, :w]

    def frame(t: float) -> np.ndarray:
        spot = np.exp(-((x - w / 2 - step * t) ** 2 + (y - h / 2) ** 2) / (2 * 9**2))
        return np.repeat(np.round(100 + 120 * spot)[..., None], 3, 2).astype(np.uint8)

    frames = [frame(t - 4) for t in range(data.WINDOW)]
    if "mean" in options:
        blur = data.mean_blur(frames, options["mean"])
    else:
        recipe = Recipe(window=str(data.WINDOW), gate="off", **options)
        blur = Synthesizer(recipe).sample("spot", frames, 0, 240.0, np.random.default_rng(0)).blur_rgb

    def spread(image: np.ndarray) -> float:
        """Variance along x of what is brighter than the ground, in the domain in which this arm adds up light."""
        values = image[..., 1].astype(float)
        if options.get("mean") != "display":
            values = data.TO_LIGHT[image[..., 1]].astype(float)
        row = (values - np.median(values[:4])).clip(0)[h // 2 - 4 : h // 2 + 4].sum(0)
        row[row < 0.01 * row.max()] = 0
        centre = (row * x[0]).sum() / row.sum()
        return float((row * (x[0] - centre) ** 2).sum() / row.sum())

    grown = spread(blur) - spread(frame(0))
    assert grown == pytest.approx(data.VARIANCE * step**2, rel=0.08)


# The file of results, and resume


def test_half_a_line_that_a_kill_left_costs_its_run_alone(stats, tmp_path, capsys):
    file = tmp_path / "study" / "runs.jsonl"
    runs = [stats.Run("a", i, "s", "t", "c", 1.0, {"x": 20.0}, {"x": [0.1 * i]}, 40.0) for i in range(3)]
    for run in runs:
        stats.append_run(file, run)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert stats.read_runs(file) == runs[:2]
    assert "line 3" in capsys.readouterr().err
    stats.append_run(file, runs[2])
    assert file.read_bytes() == whole


def test_a_changed_setting_is_another_hash_and_old_lines_do_not_count(study, data, stats):
    sources = data.Sources()
    start = study.Start()
    today = study.settings_of(sources, "steps = 1", start)
    assert len(set(today.values())) == len(data.ARMS)
    changes = [
        (sources, "steps = 2", start),
        (replace(sources, scenes=7), "steps = 1", start),
        (sources, "steps = 1", replace(start, steps=7)),
    ]
    for other in (study.settings_of(*c) for c in changes):
        assert not set(today.values()) & set(other.values())
    run = stats.Run("a", 0, today["a"], "t", "c", 1.0, {}, {}, 40.0)
    old = replace(run, settings="another")
    assert stats.of_settings([old, run], today)["a"] == {0: run}
    arms = list(data.ARMS)[:2]
    assert study.wanted(arms, [0, 1], stats.of_settings([run], today)) == [
        (arms[1], 0),
        (arms[0], 1),
        (arms[1], 1),
    ]


def test_other_steps_change_the_steps_alone_and_so_the_arms_but_not_their_start(study, data):
    usual, longer = study.config_of(None), study.config_of(3000)
    assert tomllib.loads(longer) == tomllib.loads(usual) | {"steps": 3000}
    settings = [study.settings_of(data.Sources(), c, study.Start()) for c in (usual, longer)]
    assert not set(settings[0].values()) & set(settings[1].values())
    starts = [study.start_of(data.Sources(), c, study.Start()) for c in (usual, longer)]
    assert starts[0] == starts[1]


def test_runs_of_different_test_pictures_are_not_compared(study, data, stats):
    import click

    today = study.settings_of(data.Sources(), "", study.Start())
    runs = [stats.Run("a", i, today["a"], f"pictures {i}", "c", 1.0, {}, {}, 40.0) for i in range(2)]
    with pytest.raises(click.ClickException, match="different test pictures"):
        stats.of_settings(runs, today)


@pytest.mark.slow
def test_a_study_cut_short_goes_on_and_leaves_what_is_there(study, data, stats, tmp_path, monkeypatch):
    """Two arms of the real commands on tiny films; the second arm's training is cut after its first step."""
    rng = np.random.default_rng(0)
    media, work, file = tmp_path / "media", tmp_path / "work", tmp_path / "runs.jsonl"
    (media / "stills").mkdir(parents=True)
    for i in range(2):
        picture = cv2.resize(rng.integers(0, 256, (30, 40, 3), np.uint8), (640, 480))
        cv2.imwrite(str(media / "stills" / f"{i}.png"), picture)
    sources = data.Sources(clips=(), scenes=2, size=(96, 128))
    config = study.CONFIG.read_text().replace("steps = 1000", "steps = 3").replace("crop = 128", "crop = 32")
    config = config.replace("save_every = 300", "save_every = 1").replace("batch_size = 4", "batch_size = 1")
    start = study.Start(arms=("a display mean",), steps=1)
    blur, sharp = rng.integers(0, 256, (2, 48, 48, 3), np.uint8)
    seen = []

    def tests():
        seen.append(sorted(p.name for p in work.glob("*/*-0/finished")))
        return {"scenes 5 px": [(blur, sharp)]}

    def go(arms):
        study.study(media, work, file, arms, [0], sources, config, start, tests, 1)

    a, f = "a display mean", "f ours"
    go([a])
    first = file.read_bytes()
    plain = study.train

    def cut(data_, run, config_, seed, init, extra=()):
        if (run / "finished").exists():  # the common start
            return 0.0
        plain(data_, run, config_.replace("steps = 3", "steps = 1"), seed, init, extra)
        (run / "finished").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(study, "train", cut)
        go([a, f])
    assert file.read_bytes() == first and len(seen) == 1  # the test pictures were not touched
    go([a, f])
    runs = stats.read_runs(file)
    assert file.read_bytes().startswith(first) and [(r.arm, r.seed) for r in runs] == [
        ("a", 0),
        ("start", 0),
        ("f", 0),
    ]
    assert len(seen) == 2
    (log,) = work.glob("*/f-0.log")
    assert "resum" in log.read_text().lower()
    homes = sorted(p for p in work.glob("frames-*/*") if (p / "complete").exists())
    assert len(homes) == 2 and data.windows(homes[1]) == [("scene000", 0), ("scene001", 0)]
    before = file.read_bytes()
    go([a, f])
    assert file.read_bytes() == before
