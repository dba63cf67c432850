"""`blursynth inspect` before synthesis: the right moments of a source, its verdicts, a blur one can believe."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.preview.inspect import InspectError, inspect
from blursynth.preview.source import Interval, SourceFlow, dis_flow, linear_mean, moments, spans


def texture(seed: int, h: int = 96, w: int = 400) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)


def write_frames(folder: Path, speeds: list[int], seed: int = 0) -> Path:
    """A camera that pans over a texture by so many px from each frame to the next."""
    folder.mkdir(parents=True)
    wide, x = texture(seed), 0
    for i, v in enumerate([0, *speeds]):
        x += v
        cv2.imwrite(str(folder / f"{i:06d}.png"), wide[:, x : x + 160, ::-1])
    return folder


def test_dis_flow_of_a_pan_has_its_sign_and_size_at_any_scale():
    wide = texture(3, 200, 1400)
    for longest in (1200, 480):
        flow = dis_flow(wide[:, 12:1212], wide[:, :1200], longest)  # the picture moves right by 12 px
        assert np.median(flow[..., 0]) == pytest.approx(12, abs=0.5) and abs(np.median(flow[..., 1])) < 0.5
        assert max(flow.shape[:2]) == longest
    assert dis_flow(wide[:5, :7], wide[:5, :7]).shape == (5, 7, 2)


def test_slow_and_fast_moments_are_told_apart(tmp_path):
    folder = write_frames(tmp_path / "pan", [1] * 9 + [3] * 9 + [6] * 12)
    report = inspect(folder, tmp_path / "p.html", 3)
    assert report.kind == "source" and not report.rejects and report.total == 30
    assert [c.rank for c in report.cards] == ["weakest", "median", "strongest"]
    assert report.cards[0].extent == pytest.approx(1, abs=0.3) and report.cards[-1].extent == pytest.approx(
        6, abs=0.6
    )
    for card in report.cards:
        names = [name for name, _ in card.layers]
        assert names == ["Blur preview", "Frame", "Next frame"] and card.flicker == (1, 2)
        blur, frame = card.layers[0][1].astype(float), card.layers[1][1].astype(float)
        assert np.abs(np.diff(blur, axis=1)).mean() < np.abs(np.diff(frame, axis=1)).mean()
        assert (
            card.flow is not None and np.median(card.flow[..., 0]) < -0.5
        )  # the camera pans right, the picture moves left
    assert (tmp_path / "p.png").exists()


def test_damaged_frames_and_cuts_are_verdicts_not_blur(tmp_path):
    folder = write_frames(tmp_path / "pan", [2] * 30)
    (folder / "000006.png").write_bytes(b"not a picture")
    other = texture(9)
    for i in range(20, 31):
        x = 2 * i
        cv2.imwrite(str(folder / f"{i:06d}.png"), (255 - other[:, x : x + 160, ::-1]) // 2)
    report = inspect(folder, tmp_path / "p.html", 8)
    assert report.rejects.get("cut") == 1 and sum(report.rejects.values()) == 3
    cut = next(c for c in report.cards if c.rank == "rejected: cut")
    assert cut.flow is None and [n for n, _ in cut.layers] == ["Frame", "Next frame"] and cut.rejected
    for card in report.cards:
        if not card.rejected:
            first, last = (int(v) for v in dict(card.facts)["Frames"].split(",")[0].split("–"))
            assert not first <= 6 <= last and not (first < 20 <= last)
    assert "rejected interval" in (tmp_path / "p.html").read_text()


def test_windows_tile_the_usable_runs_and_are_odd():
    steps = [Interval(0, i, "cut" if i == 24 else None, 1.0, float(i)) for i in range(1, 40)]
    steps += [Interval(1, i, None, 1.0, 1.0) for i in range(1, 5)]  # another clip: 5 frames only
    usable, rejected = moments(steps)
    assert [(m.clip, m.first, m.last) for m in usable] == [(0, 0, 8), (0, 9, 17), (0, 24, 32), (1, 0, 4)]
    assert [(m.first, m.last, m.verdict) for m in rejected] == [(23, 24, "cut")]
    assert usable[0].target == 4


def test_long_sources_are_looked_at_in_spans_from_end_to_end():
    assert spans(100, 900) == [(0, 99)]
    found = spans(144_000, 900)
    assert found[0][0] == 0 and found[-1][1] == 143_999 and 400 < sum(b - a + 1 for a, b in found) <= 900
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(found))
    assert spans(50, 18) == [(16, 33)]


def test_linear_mean_averages_light_not_codes():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert (linear_mean([black, white]) == 188).all()  # half the light of white
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert (linear_mean([ramp, ramp, ramp]) == ramp).all()


def test_flow_is_recomputed_from_a_source_only_when_it_is_the_same_picture(tmp_path):
    folder = write_frames(tmp_path / "src" / "clip", [3] * 8)
    sharp = cv2.imread(str(folder / "000004.png"))[..., ::-1]
    source = {"path": "clip", "first": 0, "last": 8, "target": 4}
    dataset = {"src": [str(tmp_path / "src")]}
    flow, note = SourceFlow(tmp_path / "data", dataset, 1e18).of(source, sharp)
    assert (
        np.median(flow[..., 0]) == pytest.approx(-3, abs=0.2)
        and "recomputed (DIS) from source frames 4 and 5" in note
    )
    for changed, picture in (
        (source, 255 - sharp),
        ({**source, "path": "../clip"}, sharp),
        ({**source, "last": 99}, sharp),
        ({"path": 3}, sharp),
    ):
        flow, note = SourceFlow(tmp_path / "data", dataset, 1e18).of(changed, picture)
        assert flow is None and note.startswith("not stored")
    assert SourceFlow(tmp_path / "data", dataset, 0).of(source, sharp)[0] is None  # out of time


@pytest.mark.parametrize("content", [b"", b"just text", b"\0" * 5000])
def test_a_file_that_is_no_video_is_one_line(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(InspectError, match=r"x\.mp4") as e:
        inspect(tmp_path / "x.mp4", tmp_path / "p.html")
    assert "\n" not in str(e.value)


def test_a_still_source_says_so_and_shows_its_frames(tmp_path):
    folder = write_frames(tmp_path / "still", [0] * 12)
    report = inspect(folder, tmp_path / "p.html", 4)
    assert report.cards and report.rejects.get("duplicate", 0) + report.total == 12
