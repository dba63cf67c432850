from __future__ import annotations

import csv
import io
import json
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.checks.audit import audit_source
from blursynth.checks.audit_table import AuditReport
from blursynth.checks.measure import (
    blend_residual,
    clipped_share,
    directional_energy,
    duplicate_period,
    luma,
    motion_px,
    noise_sigma,
    phase_contrast,
    soft_frames,
)
from blursynth.recipe import Recipe, RunOptions
from blursynth.run.make import prepare
from blursynth.video.clip import Frame, probe_clip, read_frames
from blursynth.video.intervals import IntervalChecker
from blursynth.video.verdict import low_rate
from tests.helpers.films import moving, texture, write_frames, write_video

BIKES_CUTS = [30, 76, 137, 187, 242]  # found by eye: the first frame of each new scene


def check(frames) -> tuple[dict[str, list[int]], list[int]]:
    """Reasons by frame number, and the numbers revised later. Takes RGB arrays or Frames."""
    checker = IntervalChecker()
    out: dict[str, list[int]] = {}
    for i, f in enumerate(frames):
        reason = checker.push(f if isinstance(f, Frame) else Frame(i, f, i / 240, None))
        if reason:
            out.setdefault(reason, []).append(i)
    return out, sorted(checker.revised)


def noisy(frames, sigma=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return [np.clip(f + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8) for f in frames]


# Cuts


def test_the_cuts_of_a_real_clip_are_found_and_nothing_else(bikes):
    info = probe_clip(bikes)
    assert check(read_frames(info, 0, info.frames - 1)) == ({"cut": BIKES_CUTS}, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["05_default_juggle", "cam03", "demo", "max-heromode", "solidWhiteRight"])
def test_real_clips_without_cuts_have_none(real_clips, name):
    """Among them a sun that goes on and off behind a jumper (demo) and a fast ride (max-heromode)."""
    path = real_clips / f"{name}.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    info = probe_clip(path)
    assert check(read_frames(info, 0, info.frames - 1)) == ({}, [])


@pytest.mark.parametrize("speed", [2, 16, 40])
@pytest.mark.parametrize("grain", [24, 80])
def test_fast_motion_is_no_cut(speed, grain):
    w, h = 1280, 720
    big = texture((w + 8 * speed, h + 4 * speed), seed=speed, grain=grain)
    frames = [big[i * speed // 2 :][:h, i * speed :][:, :w] for i in range(8)]
    assert check(frames) == ({}, [])


def test_a_scene_change_is_a_cut_whatever_moves_before_and_after():
    for seed in range(6):
        frames = moving(6, (640, 360), (20, 4), seed=seed) + moving(6, (640, 360), (3, 1), seed=seed + 100)
        assert check(frames) == ({"cut": [6]}, []), seed


def test_brightness_alone_is_no_cut():
    frames = moving(12, (640, 360), (4, 2))
    frames[5] = np.clip(frames[5] * 1.5 + 20.0, 0, 255).astype(np.uint8)  # a flash
    frames[8:] = [(f * 0.5).astype(np.uint8) for f in frames[8:]]  # a lamp goes out
    assert check(frames) == ({}, [])


def test_flat_pictures_differ_by_brightness_only():
    dark, light = np.full((90, 160, 3), 20, np.uint8), np.full((90, 160, 3), 200, np.uint8)
    assert check([dark, dark, light, light])[0] == {"cut": [2]}


# Duplicates


def test_a_repeated_frame_of_a_moving_clip_is_a_duplicate():
    f = moving(20, (320, 192))
    repeated = [*f[:8], f[7], *f[8:14], f[13], f[13], *f[14:]]
    assert check(repeated) == ({"duplicate": [8, 15, 16]}, [])


def test_a_repeat_that_was_encoded_anew_is_a_duplicate(tmp_path):
    f = moving(30, (320, 192))
    repeated = [x for i, x in enumerate(f) for x in [x] * (2 if i % 5 == 4 else 1)]
    truth = [i for i in range(1, len(repeated)) if repeated[i] is repeated[i - 1]]
    info = probe_clip(
        write_video(tmp_path / "a.mp4", repeated, options={"crf": "28", "x264-params": "threads=1"})
    )
    frames = list(read_frames(info, 0, info.frames - 1))
    assert not all(np.array_equal(frames[i].rgb, frames[i - 1].rgb) for i in truth), (
        "nothing was encoded anew"
    )
    assert check(frames) == ({"duplicate": truth}, [])


@pytest.mark.parametrize("times", [2, 3, 5])
def test_every_cadence_is_seen_from_the_first_frame_on(times):
    frames = [x for x in moving(12, (320, 192)) for _ in range(times)]
    found, revised = check(frames)
    truth = [i for i in range(len(frames)) if i % times]
    assert sorted(found["duplicate"] + revised) == truth
    assert revised == truth[: times - 1]  # what a run starts with is known only once the clip has moved


def test_a_static_clip_is_no_duplicate():
    still = texture((320, 192))
    assert check([still] * 40) == ({}, [])
    assert check(noisy([still] * 40)) == ({}, [])


def test_a_still_that_follows_motion_is_usable_again_after_a_few_frames():
    frames = moving(12, (320, 192))
    found, _ = check(frames + [frames[-1]] * 30)
    assert found["duplicate"] == list(range(12, 21))


def test_motion_that_slows_down_or_is_tiny_is_no_duplicate():
    big = texture((700, 400), grain=16)
    at = np.cumsum(12 * 0.7 ** np.arange(12))  # 12 px a frame, 30% less each time, down to 0.2 px
    shift = [
        cv2.warpAffine(big, np.float32([[1, 0, -x], [0, 1, 0]]), (320, 192), flags=cv2.INTER_LINEAR)
        for x in at
    ]
    assert check(noisy(shift, 1.0)) == ({}, [])
    slow = [
        cv2.warpAffine(big, np.float32([[1, 0, -0.1 * i], [0, 1, 0]]), (320, 192), flags=cv2.INTER_LINEAR)
        for i in range(20)
    ]
    assert check(slow) == ({}, [])


# Faults


def test_both_intervals_of_a_bad_frame_are_named():
    f = [Frame(i, rgb, i / 30, None) for i, rgb in enumerate(moving(16, (320, 192)))]
    f[3] = Frame(3, None, 0.1, "decode")
    f[6] = Frame(6, None, 0.2, "size")
    f[9] = Frame(9, None, 0.3, "truncated")
    f[12].broken = "gap"
    assert check(f) == ({"decode": [3, 4, 9, 10], "size": [6, 7], "gap": [12]}, [])


def test_frames_of_another_size_are_named():
    frames = [*moving(3, (320, 192)), *moving(3, (160, 96))]
    assert check(frames) == ({"size": [3]}, [])


def test_the_check_is_cheap():
    frames = [Frame(i, f, None, None) for i, f in enumerate(moving(12, (1280, 720), (8, 3)))]
    checker = IntervalChecker()
    best = 1e9
    for f in frames:
        start = time.process_time()
        checker.push(f)
        best = min(best, time.process_time() - start) if f.index else best
    assert best < 0.015  # 3 ms on an idle core; the bound leaves room for a loaded one


# Measurements with known answers


@pytest.mark.parametrize("sigma", [1.0, 3.0, 8.0])
def test_noise_is_measured(sigma):
    ramp = np.broadcast_to(np.linspace(60, 190, 512)[None, :], (384, 512))
    rng = np.random.default_rng(1)
    noise = np.rint(ramp + rng.normal(0, sigma, ramp.shape)).astype(np.uint8)
    assert noise_sigma(noise) == pytest.approx(
        sigma, rel=0.2
    )  # the quietest tenth of blocks lies a little lower


def test_clipping_is_measured():
    rgb = np.full((80, 80, 3), 100, np.uint8)
    rgb[:20, :, 0] = 255
    rgb[40:60] = 0
    assert clipped_share(rgb) == (0.25, 0.25)


def test_motion_is_measured_in_full_size_px():
    a, b = moving(2, (1280, 720), (12, 0))
    median, p95 = motion_px(a, b)
    assert median == pytest.approx(12, abs=1.5) and p95 == pytest.approx(12, abs=4)


def test_blur_takes_energy_along_its_direction():
    g = luma(texture((256, 192), grain=4))
    sharp = directional_energy(g)
    along = directional_energy(cv2.blur(g, (11, 1)))
    assert along[0] < 0.2 * sharp[0] and along[2] > 0.3 * sharp[2]


def test_soft_frames_are_found_within_their_scene():
    f = moving(30, (256, 192), (1, 0))
    smooth = [
        cv2.GaussianBlur(x, (0, 0), 6) for x in moving(20, (256, 192), seed=5)
    ]  # a scene smooth by nature
    f[10:14] = [cv2.blur(x, (21, 1)) for x in f[10:14]]
    energy = np.array([directional_energy(luma(x)) for x in f + smooth])
    assert np.flatnonzero(soft_frames(energy, [30])).tolist() == [10, 11, 12, 13]


def test_cadence_of_numbers():
    assert duplicate_period([4, 9, 14, 19, 24]) == 5
    assert duplicate_period([4, 7, 15, 19, 31]) is None
    assert duplicate_period([4]) is None
    x = np.tile([1.0, 1.0, 0.5], 10)
    assert phase_contrast(x, 0.8) == 3 and phase_contrast(np.ones(30), 0.8) is None
    x[3:9] = np.nan
    assert phase_contrast(x, 0.8) == 3


def test_a_blend_lies_between_its_neighbours():
    a, b, c = (luma(f) for f in moving(3, (256, 192), (6, 0)))
    blend = ((a.astype(int) + c) // 2).astype(np.uint8)
    assert blend_residual(a, blend, c) < 0.05 < 0.2 < blend_residual(a, b, c)
    assert np.isnan(blend_residual(a, a, a))


# Whole audits


def clip_of(tmp_path: Path, frames, **kwargs):
    write_frames(tmp_path / "clip", frames)
    return audit_source([tmp_path / "clip"], fps=240, **kwargs).clips[0]


def test_a_good_clip_is_ok(tmp_path):
    a = clip_of(tmp_path, noisy(moving(45, (320, 192))))
    assert (a.verdict, a.advice) == ("ok", [])
    assert (a.windows, a.windows_possible, a.cuts, a.duplicates, a.faults) == (5, 5, [], [], {})
    assert a.motion_px == pytest.approx(np.hypot(3, 2), abs=0.6)
    assert a.noise_sigma == pytest.approx(
        2 * np.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.3
    )  # luma averages channels


def test_doubled_frames_are_a_false_rate(tmp_path):
    a = clip_of(tmp_path, [x for x in moving(24, (320, 192)) for _ in range(2)])
    assert a.verdict == "reject" and a.duplicate_period == 2 and a.windows == 0
    assert any("50% of the frames are repeats (about 120 fps" in s for s in a.advice)


def test_blended_frames_are_a_false_rate(tmp_path):
    f = moving(25, (320, 192), (6, 2))
    blended = [x for a, b in pairwise(f) for x in (a, cv2.addWeighted(a, 0.5, b, 0.5, 0))]
    a = clip_of(tmp_path, blended)
    assert a.verdict == "reject" and a.blend_period == 2 and "blend" in a.advice[0]


def test_softer_frames_at_a_cadence_are_pointed_out(tmp_path):
    f = [
        cv2.GaussianBlur(x, (0, 0), 1.5) if i % 2 else x for i, x in enumerate(noisy(moving(40, (320, 192))))
    ]
    a = clip_of(tmp_path, f)
    assert a.soft_period == 2 and any("softer" in s for s in a.advice) and a.verdict == "warn"


def test_cuts_missing_and_bad_frames_are_counted(tmp_path):
    folder = write_frames(tmp_path / "clip", moving(20, (320, 192)) + moving(20, (320, 192), seed=9))
    (folder / "000030.png").unlink()
    (folder / "000035.png").write_bytes(b"")
    a = audit_source([folder], fps=240).clips[0]
    assert (a.cuts, a.gaps, a.faults) == ([20], [30], {"unreadable": 1})
    assert (a.windows, a.windows_possible) == (2, 4)  # 0-8 and 9-17; a cut in 18-26, a gap in 27-35
    assert a.verdict == "warn"


def test_audit_takes_the_rate_that_make_takes(tmp_path):
    write_video(tmp_path / "film.mp4", moving(12))  # says 30
    write_frames(tmp_path / "folder", moving(12))  # says nothing
    for recipe in (Recipe(), Recipe(fps=240), Recipe(fps_unknown=120), Recipe(fps=240, fps_unknown=120)):
        plan, _, _ = prepare(recipe, RunOptions(src=[str(tmp_path)]), {})
        audited = {c.clip: c.fps for c in audit_source([tmp_path], recipe=recipe).clips}
        assert audited == {p.clip.rel: p.clip.info.fps for p in plan.clips} and len(audited) == 2
    a = audit_source([tmp_path / "film.mp4"], fps=240, recipe=Recipe(fps=60)).clips[0]
    assert a.fps == 240 and "says 30 fps, taken for 240" in a.advice and a.verdict == "warn"
    assert not any("is a low rate" in words for words in a.advice)


def test_blown_highlights_static_scenes_and_unknown_rates_get_advice(tmp_path):
    frame = texture((320, 192)) // 2 + 40
    frame[:60] = 255
    write_frames(tmp_path / "clip", [frame] * 20)
    a = audit_source([tmp_path / "clip"]).clips[0]
    assert a.clipped_high == pytest.approx(60 / 192, abs=0.02)
    text = " ".join(a.advice)
    assert all(s in text for s in ("--highlights", "hardly anything moves", "--fps")) and a.verdict == "warn"


def test_a_variable_rate_is_pointed_out(tmp_path):
    steps = np.random.default_rng(0).choice([4, 5, 6, 7], 39)
    path = write_video(tmp_path / "a.mp4", moving(40), fps=1000, pts=[0, *np.cumsum(steps).tolist()])
    a = audit_source([path]).clips[0]
    assert a.rate_jitter > 0.25 and any("variable frame rate" in s for s in a.advice)
    assert 1000 / 7 <= a.fps_measured <= 1000 / 4


def test_the_report_is_json_and_text_and_lists_what_was_refused(tmp_path, frame_folder):
    (frame_folder.parent / "text.mp4").write_text("no film")
    for p in ("input", "target"):
        write_frames(frame_folder.parent / "pairs" / p, moving(3))
    seen = []
    report = audit_source([frame_folder.parent], max_frames=9, progress=lambda c, i: seen.append((c.rel, i)))
    assert seen == [("clip", i) for i in range(9)]
    assert report.clips[0].read == 9 and report.clips[0].frames == 12
    assert sorted(r.reason for r in report.rejects) == ["pairs", "pairs", "unreadable"]
    assert AuditReport.model_validate(json.loads(report.to_json())) == report
    text = str(report)
    assert (
        all(s in text for s in ("clip", "9/12", "96x64", "not a readable video", "1 clip:"))
        and report.exit_code == 1
    )


def test_a_source_of_false_rates_only_ends_in_an_error_code(tmp_path):
    write_frames(tmp_path / "clip", [x for x in moving(24, (320, 192)) for _ in range(2)])
    assert audit_source([tmp_path / "clip"]).exit_code == 1


def test_windows_are_counted_by_the_length_asked_for_and_the_csv_says_the_same(frame_folder):
    for window in (3, 5, 12, 13):
        report = audit_source([frame_folder], 240.0, window=window)
        (c,) = report.clips
        assert (c.window, c.windows, c.windows_possible) == (window, 12 // window, 12 // window)
        (row,) = csv.DictReader(io.StringIO(report.to_csv()))
        assert row["clip"] == c.clip and int(row["windows"]) == c.windows and float(row["fps"]) == 240
    assert "too short for a window of 13" in " ".join(c.advice)


def test_a_source_below_16_px_a_side_is_named(tmp_path):
    for name, size in (("thin", (15, 64)), ("whole", (32, 64))):
        write_frames(tmp_path / name, [np.full((*size, 3), 40 * i, np.uint8) for i in range(4)])
    report = audit_source([tmp_path])
    assert [c.clip for c in report.clips] == ["whole"]
    assert [(r.what, r.reason, r.detail) for r in report.rejects] == [
        ("thin", "too small", "64x15 px; a source needs 16 px a side")
    ]


@pytest.mark.parametrize(
    ("fps", "window", "advice"),
    [(60, 9, "9 frames last 133 ms; try --window 3 (33 ms) or --recipe demo"), (89, 9, "90 ms; try --window 4 (34 ms)"),
     (25, 3, "3 frames last 80 ms; try --recipe demo"), (80, 4, "4 frames last 38 ms")],
)  # fmt: skip
def test_a_low_rate_is_told_the_window_that_suits_it(fps, window, advice):
    assert advice in low_rate(fps, window)
