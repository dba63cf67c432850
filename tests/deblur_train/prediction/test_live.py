import io
import itertools
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deblur_train import build_generator
from deblur_train.cli.main import main
from deblur_train.media.pictures import ImageError
from deblur_train.media.video_in import VideoError, VideoReader
from deblur_train.models.base import start_near_identity
from deblur_train.prediction.live import LiveStats, live
from deblur_train.prediction.live_source import open_source, paced, raw_frames
from tests.helpers.train_films import panning, read_film, write_film


class World:
    """A camera and a network on one clock that only the network's work moves: time passes, frames arrive meanwhile.

    The network takes ``work`` seconds; the camera gives a frame every ``interval``. While the network works, the
    camera's thread is let run for as many frames as arrive in that time, and is waited for: no real time matters.
    """

    def __init__(self, interval: float, work: float, frames: int) -> None:
        self.interval, self.work, self.frames = interval, work, frames
        self.now = self.at = 0.0
        self.out = 0  # frames that have arrived
        self.changed = threading.Condition()
        self.allowed = self.caught = 0

    def camera(self):
        for i in range(self.frames):
            with self.changed:
                self.changed.wait_for(lambda i=i: self.allowed > i, timeout=10)
            self.at = (i + 1) * self.interval
            yield np.full((2, 2, 3), i, np.uint8)
            with self.changed:  # asked for the next one: this one lies in the slot
                self.caught = i + 1
                self.changed.notify_all()

    def capture_clock(self) -> float:
        """Frames are stamped with their own time in the camera's thread, the loop reads the moved clock."""
        return self.at if threading.current_thread() is not threading.main_thread() else self.now

    def arrive(self, until: float) -> None:
        while self.out < self.frames and (self.out + 1) * self.interval <= until + 1e-9:
            self.out += 1
        with self.changed:
            self.allowed = self.out
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.caught >= self.out, timeout=10)

    def network(self, rgb: np.ndarray) -> np.ndarray:
        self.now += self.work
        self.arrive(self.now)
        return rgb

    def run(self) -> tuple[list, LiveStats]:
        stats, results = LiveStats(), []
        self.now, self.out, self.allowed = self.interval, 1, 1
        for result in live(self.camera(), self.network, stats, clock=self.capture_clock):
            results.append(result)
            # Nothing arrived during the work: time goes on until a frame does.
            if self.out < self.frames and result.index == self.out - 1:
                self.now = (self.out + 1) * self.interval
                self.arrive(self.now)
        return results, stats


@pytest.mark.parametrize("speed", [2.5, 7.3, 30.0])
def test_latency_stays_bounded_when_the_camera_is_faster(speed):
    """A camera ``speed`` times as fast as the network, for 200 frames: every restored frame is the newest there was
    when the network became free, at most one interval old then, so that no latency exceeds work + interval; a queue
    would have grown to many times that. Counts add up, and the last frame is restored."""
    work = 1.0
    world = World(work / speed, work, 200)
    results, stats = world.run()
    *latencies, last = stats.latencies
    assert max(latencies) <= work + world.interval + 1e-6 and last <= 2 * work + 1e-6
    indices = [r.index for r in results]
    assert indices == sorted(set(indices)) and indices[-1] == 199
    steps = np.diff(indices[:-1])
    assert steps.min() >= int(speed) and steps.max() <= int(speed) + 1, "the newest wins each time"
    assert stats.captured == 200 and stats.processed == len(results)
    assert stats.dropped == stats.captured - stats.processed > 0
    assert all(r.rgb[0, 0, 0] == r.index for r in results)


def test_nothing_is_dropped_when_the_network_is_faster():
    world = World(1.0, 0.2, 50)
    results, stats = world.run()
    assert [r.index for r in results] == list(range(50)) and stats.dropped == 0 and stats.captured == 50
    assert max(stats.latencies) == pytest.approx(0.2)


def test_a_slow_network_gets_the_newest_frame_and_the_last_one():
    """Three frames arrive before the loop looks: the first two are dropped, the third is restored, then it ends."""
    stats, all_out = LiveStats(), threading.Event()

    def burst():
        for i in range(3):
            yield np.full((2, 2, 3), i, np.uint8)
        all_out.set()

    loop = live(burst(), lambda x: x, stats, stop=lambda: not all_out.wait(10))
    (result,) = loop
    assert result.index == 2 and result.rgb[0, 0, 0] == 2
    assert stats.captured == 3 and stats.processed == 1 and stats.dropped == 2


def test_stopping_and_errors():
    """``stop`` ends a source that never ends, also one that gives nothing; what the source raises comes out after its
    last frame; leaving the loop early still makes counts add up."""
    frame = np.zeros((4, 4, 3), np.uint8)
    stats = LiveStats()
    seen = list(live(itertools.repeat(frame), lambda x: x, stats, stop=lambda: stats.processed >= 5))
    assert len(seen) == 5 and stats.captured == stats.processed + stats.dropped

    never, asked = threading.Event(), itertools.count()

    def silent():
        never.wait()
        yield frame

    assert list(live(silent(), lambda x: x, stop=lambda: next(asked) > 1)) == []
    never.set()

    def breaks():
        yield frame
        raise VideoError("camera unplugged")

    got = live(breaks(), lambda x: x)
    next(got)
    with pytest.raises(VideoError, match="unplugged"):
        next(got)
    stats = LiveStats()
    for _ in live(iter([frame] * 10), lambda x: x, stats):
        break
    assert stats.processed == 1 and stats.captured == 1 + stats.dropped


def test_live_takes_a_generator():
    torch.manual_seed(0)
    g = build_generator("mobilenet-dsc").eval()
    start_near_identity(g, 0.0)
    (result,) = live(iter([np.full((40, 50, 3), 7, np.uint8)]), g)
    np.testing.assert_array_equal(result.rgb, result.blurred)


def test_a_file_is_paced_by_its_own_times(tmp_path):
    """Frames of a variable rate come when they are due on a clock that only sleeping moves."""
    film = write_film(tmp_path / "a.mp4", panning(5), [0, 24, 240, 264, 300])
    now, times = [100.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    for _ in paced(VideoReader(film, copy=False), lambda: now[0], sleep):
        times.append(float(Fraction(round((now[0] - 100) * 600), 600)))
    assert times == [0, 24 / 600, 240 / 600, 264 / 600, 300 / 600]


class Trickle(io.BytesIO):
    """A pipe that gives at most 10 bytes at a time."""

    def read(self, n: int = -1) -> bytes:
        return super().read(min(n, 10) if n >= 0 else 10)


def test_pipes(tmp_path):
    frames = [np.random.default_rng(i).integers(0, 256, (3, 5, 3)).astype(np.uint8) for i in range(4)]
    data = b"".join(f.tobytes() for f in frames)
    got = list(open_source("-", (5, 3), Trickle(data)))
    np.testing.assert_array_equal(got, frames)
    rest = raw_frames(Trickle(data[:-1]), 5, 3)
    with pytest.raises(VideoError, match="44 of 45 bytes"):
        list(rest)
    film = write_film(tmp_path / "a.mkv", panning(6))
    assert len(list(open_source("-", None, io.BytesIO(film.read_bytes())))) == 6
    with pytest.raises(ImageError, match="camera 97: cannot be opened"):
        open_source("97")
    with pytest.raises(ImageError, match="no such file"):
        open_source(str(tmp_path / "none.mp4"))


def invoke(*args) -> object:
    return CliRunner().invoke(main, [str(a) for a in args])


def test_live_command_records_a_file(tmp_path, checkpoint):
    """A file through --live into a file: frames carry their capture times, the summary counts them."""
    film = write_film(tmp_path / "a\x1b[2J.mp4", panning(6))  # a name that would clear the terminal
    out = tmp_path / "b.mkv"
    common = ["--live", "--checkpoint", checkpoint, "--device", "cpu", "--side-by-side", "--temporal", "3"]
    result = invoke("predict", film, *common, "--out", out)
    assert result.exit_code == 0, result.output
    assert "latency median" in result.output and "p95" in result.output and "dropped of 6" in result.output
    assert "\x1b" not in result.output and "a\\x1b[2J.mp4" in result.output
    shots = read_film(out)[0]
    assert 1 <= len(shots) <= 6 and shots[0].rgb.shape == (96, 256, 3)
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{t}/a.mp4", "--out", "window"], 1, "headless"),
        (["{t}/a.mp4", "--out", "{t}/x.avi"], 1, "writes .mp4"),
        (["{t}/a.mp4", "{t}/a.mp4", "--out", "-"], 2, "one INPUT"),
        (["{t}/a.mp4", "--out", "-", "--live-size", "4x4"], 2, "standard input"),
        (["-", "--out", "-", "--live-size", "4*4"], 2, "WIDTHxHEIGHT"),
        (["98", "--out", "-"], 1, "camera 98"),
        (["{t}/none.mp4", "--out", "-"], 1, "no such file"),
    ],
)
def test_live_mistakes_end_in_one_line(tmp_path, checkpoint, monkeypatch, arguments, code, words):
    import cv2

    def headless(*_: object) -> None:
        raise cv2.error("no GUI")

    monkeypatch.setattr(cv2, "namedWindow", headless)
    write_film(tmp_path / "a.mp4", panning(2))
    given = [a.format(t=tmp_path) for a in arguments]
    result = invoke("predict", "--live", "--checkpoint", checkpoint, "--device", "cpu", *given)
    assert result.exit_code == code and words in result.output.replace("\n", " "), result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.slow
def test_live_between_pipes_stops_on_ctrl_c(tmp_path, checkpoint):
    """Raw frames in and out; a source that goes on for ever; Ctrl-C: exit status 0 and the counts."""
    program = (
        "import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from deblur_train.cli.main import main; main(sys.argv[1:])"
    )
    arguments = ["predict", "-", "--live", "--live-size", "64x32", "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--out", "-", "--device", "cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    frame = bytes(range(256)) * 24
    try:
        for _ in range(3):  # the next is written when the one before is out: none is dropped
            process.stdin.write(frame)
            process.stdin.flush()
            assert process.stdout.read(len(frame)) == frame
        process.send_signal(2)
        _, words = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0 and b"3 frames restored, 0 dropped of 3" in words, words
