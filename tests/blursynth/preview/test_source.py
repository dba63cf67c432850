"""`blursynth inspect` before synthesis: the right moments of a source, its verdicts, a blur one can believe."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from blursynth.preview.inspect import InspectError, inspect
from blursynth.preview.source import windows_of


def texture(seed: int, h: int = 96, w: int = 400) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)


def light(codes: np.ndarray) -> np.ndarray:
    """Linear light of sRGB codes, uint8."""
    x = codes / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def write_frames(folder: Path, speeds: list[int], seed: int = 0) -> Path:
    """A camera that pans over a texture by so many px from each frame to the next."""
    folder.mkdir(parents=True)
    wide, x = texture(seed), 0
    for i, v in enumerate([0, *speeds]):
        x += v
        cv2.imwrite(str(folder / f"{i:06d}.png"), wide[:, x : x + 160, ::-1])
    return folder


def test_slow_and_fast_moments_are_told_apart(tmp_path):
    folder = write_frames(tmp_path / "pan", [1] * 9 + [3] * 9 + [6] * 12)
    report = inspect(folder, tmp_path / "p.html", 3)
    assert report.kind == "source" and not report.rejects and report.total == 3
    assert [c.rank for c in report.cards] == ["weakest", "median", "strongest"]
    assert report.cards[0].extent == pytest.approx(1, abs=0.3) and report.cards[-1].extent == pytest.approx(
        6, abs=0.6
    )
    for card in report.cards:
        names = [name for name, _ in card.layers]
        assert names == ["Blur preview", "Frame", "Next frame"] and card.flicker == (1, 2)
        blur, frame = card.layers[0][1].astype(float), card.layers[1][1].astype(float)
        assert np.abs(np.diff(blur, axis=1)).mean() < np.abs(np.diff(frame, axis=1)).mean()
        moved = np.median(card.flow[..., 0])  # the camera pans right, the picture moves left
        assert moved == pytest.approx(-card.extent, abs=0.5) and abs(np.median(card.flow[..., 1])) < 0.5
        assert light(blur.astype(np.uint8)).mean() == pytest.approx(
            light(frame.astype(np.uint8)).mean(), rel=0.03
        )
    assert (tmp_path / "p.png").exists()


def test_damaged_frames_and_cuts_are_verdicts_not_blur(tmp_path):
    folder = write_frames(tmp_path / "pan", [2] * 30)
    (folder / "000006.png").write_bytes(b"not a picture")
    other = texture(9)
    for i in range(20, 31):
        x = 2 * i
        cv2.imwrite(str(folder / f"{i:06d}.png"), (255 - other[:, x : x + 160, ::-1]) // 2)
    report = inspect(folder, tmp_path / "p.html", 8)
    assert report.rejects == {"unreadable": 1, "cut": 1} and report.total == 1
    unreadable, cut = report.left_out
    assert cut.rank == "left out: cut" and cut.flow is None and "below 40%" in cut.says
    assert [n for n, _ in cut.layers] == ["Frame 19", "Frame 20"]
    assert [n for n, _ in unreadable.layers] == [
        "Frame 5",
        "Frame 7",
    ] and "Frame 6 cannot be read" in unreadable.says
    assert [dict(c.facts)["Frames"] for c in report.cards] == ["9–17, shown is 13"]
    html = (tmp_path / "p.html").read_text()
    assert html.index("1 window, weakest to strongest") < html.index(
        "Left out: 2 windows, one of each reason"
    )


def test_windows_are_odd_and_tile_a_short_source():
    def ends(n, budget=900):
        return [(w.first, w.last) for w in windows_of(n, budget)]

    assert ends(27) == [(0, 8), (9, 17), (18, 26)] and ends(5) == [(0, 4)] and ends(4) == [(0, 2)]
    assert windows_of(27, 900)[0].target == 4


def test_long_sources_are_looked_at_from_end_to_end():
    found = windows_of(144_000, 900)
    assert found[0].first == 0 and found[-1].last == 143_999 and 50 <= len(found) <= 100
    gaps = np.diff([w.first for w in found])
    assert gaps.min() > 9 and np.ptp(gaps) <= 1, "evenly spread"


@pytest.mark.parametrize("content", [b"", b"just text", b"\0" * 5000])
def test_a_file_that_is_no_video_is_one_line(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(InspectError, match=r"x\.mp4") as e:
        inspect(tmp_path / "x.mp4", tmp_path / "p.html")
    assert "\n" not in str(e.value)


def test_a_still_source_says_so_and_shows_its_frames(tmp_path):
    folder = write_frames(tmp_path / "still", [0] * 12)
    report = inspect(folder, tmp_path / "p.html", 4)
    assert report.cards and report.rejects.get("duplicate", 0) + report.total == 1
