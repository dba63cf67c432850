import itertools
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deblur_train import build_generator
from deblur_train.cli.main import main
from deblur_train.inference.restorer import load_restorer
from deblur_train.media.codec import Encoding, choose_codec
from deblur_train.media.video_in import Shot, VideoError, VideoReader
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator
from deblur_train.models.nafnet import NAFNetShape
from deblur_train.prediction.videos import ahead, restore_video
from tests.helpers.train_films import panning, read_film, rotated, texture, write_film


def invoke(*args) -> object:
    return CliRunner().invoke(main, [str(a) for a in args])


def same(rgb: np.ndarray) -> np.ndarray:
    return rgb


def close_to(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean absolute difference, largest bias of a channel), codes."""
    d = a.astype(float) - b.astype(float)
    return float(np.abs(d).mean()), float(np.abs(d.mean((0, 1))).max())


def test_sound_times_and_pictures_come_through(tmp_path, checkpoint):
    """Through an identity: sound packets byte for byte, every time stamp of a variable rate, pictures within the codec."""
    pts = [0, 24, 48, 60, 61, 96, 300, 324]
    film = write_film(tmp_path / "a film.mp4", panning(8), pts, sound="aac")
    result = invoke("predict", film, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "1 video (8 frames) restored" in result.output and "frames/s" in result.output
    before, sound, a = read_film(film)
    after, sound_after, b = read_film(tmp_path / "out" / "a film.mp4")
    assert [s.pts * a.time_base for s in before] == [s.pts * b.time_base for s in after]
    assert [s.pts * b.time_base for s in after] == [Fraction(p, 600) for p in pts]
    assert sound == sound_after and len(sound) > 5
    for x, y in zip(before, after, strict=True):
        mean, bias = close_to(x.rgb, y.rgb)
        assert mean < 3 and bias < 0.5
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a film.mp4"], "no temporary file is left"


@pytest.mark.parametrize(
    ("colour", "pix_fmt"),
    [((1, 1, 1, 1), "yuv420p"), ((2, 1, 1, 1), "yuv420p"), ((1, 5, 5, 6), "yuv420p"), (None, "yuv444p")],
)
def test_colour_tags_and_levels(tmp_path, colour, pix_fmt):
    """Range, matrix, primaries and transfer keep their tags, and the pixels are converted by them both ways."""
    film = write_film(tmp_path / "a.mkv", panning(3), colour=colour, pix_fmt=pix_fmt)
    restore_video(film, tmp_path / "b.mkv", same, encoding=Encoding(crf=4))
    (x, *_), _, a = read_film(film)
    (y, *_), _, b = read_film(tmp_path / "b.mkv")
    assert a.facts().colour == b.facts().colour
    if colour:
        c = b.facts().colour
        assert (c.range, c.matrix, c.primaries, c.transfer) == colour
    mean, bias = close_to(x.rgb, y.rgb)
    # swscale cuts off half a code of full-range chroma on the way in.
    assert mean < 1.5 and bias < (1.2 if colour and colour[0] == 2 else 0.5)


TURNS = {
    "90": lambda p: np.rot90(p, -1),
    "180": lambda p: np.rot90(p, 2),
    "270": lambda p: np.rot90(p, 1),
    "mirrored": lambda p: p[:, ::-1],
    "upside-down": lambda p: p[::-1],
    "transposed": lambda p: p.swapaxes(0, 1),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_phone_s_rotation_comes_out_upright(tmp_path, turn):
    """The pixels are turned and mirrored as a player would, and nothing is left that turns them once more."""
    film = write_film(tmp_path / "a.mp4", panning(2), aspect=Fraction(4, 3))
    plain = read_film(film)[0][0].rgb
    rotated(film, turn)
    restore_video(film, tmp_path / "b.mp4", same, encoding=Encoding(crf=4))
    shots, _, b = read_film(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert next(container.decode(video=0)).side_data.get("DISPLAYMATRIX") is None
    want = TURNS[turn](plain)
    assert shots[0].rgb.shape == want.shape and close_to(shots[0].rgb, want)[0] < 1.5
    lying = want.shape != plain.shape
    assert b.facts().aspect == (Fraction(3, 4) if lying else Fraction(4, 3))


def test_ten_bits_and_odd_sizes_stay(tmp_path):
    deep = [(texture(64, 80).astype(np.uint16) << 8) + 128] * 3
    film = write_film(tmp_path / "a.mkv", deep, pix_fmt="yuv420p10le")
    restore_video(film, tmp_path / "b.mkv", same, encoding=Encoding(crf=1))
    before, after = read_film(film)[0][0].rgb, read_film(tmp_path / "b.mkv")[0][0].rgb
    assert after.dtype == np.uint16 and close_to(before / 257, after / 257)[0] < 0.5, "finer than 8 bits"
    odd = write_film(tmp_path / "c.mkv", [texture(63, 81)] * 3, pix_fmt="yuv444p")
    restore_video(odd, tmp_path / "d.mkv", same)
    assert read_film(tmp_path / "d.mkv")[0][0].rgb.shape == (63, 81, 3)


def test_containers_that_cannot_hold_it_are_changed_and_said(tmp_path, checkpoint):
    """AVI becomes mp4; sound that no mp4 takes goes along in an mkv; sound that none takes is left out, and said."""
    (tmp_path / "in").mkdir()
    for name, sound in (("a", None), ("b", "pcm_u8"), ("c", "wmav2")):
        write_film(
            tmp_path / "in" / f"{name}.avi",
            panning(3),
            [0, 1, 2],
            Fraction(1, 25),
            sound=sound,
            codec="mpeg4",
        )
    result = invoke(
        "predict", tmp_path / "in", "--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.mp4", "b.mkv", "c.mp4"}
    assert "written as a.mp4" in result.output and "written as b.mkv" in result.output
    assert "1 streams left out (audio wmav2)" in result.output
    assert read_film(tmp_path / "in" / "b.avi")[1] and read_film(tmp_path / "out" / "b.mkv")[1]


def test_a_changed_suffix_never_lands_on_another_file(tmp_path, checkpoint):
    """Films of one name and several suffixes all come out."""
    (tmp_path / "in").mkdir()
    for name, frames in (("a.avi", 2), ("a.mp4", 3), ("a.wmv", 4)):
        film = write_film(tmp_path / f"{name}.mkv", panning(frames), range(frames), Fraction(1, 25))
        film.rename(tmp_path / "in" / name)
    common = ["--checkpoint", checkpoint, "--device", "cpu", "--out"]
    result = invoke("predict", tmp_path / "in", *common, tmp_path / "out")
    assert result.exit_code == 0, result.output
    frames = {p.name: len(read_film(p)[0]) for p in (tmp_path / "out").iterdir()}
    assert frames == {"a.avi.mp4": 2, "a.mp4": 3, "a.wmv.mp4": 4}
    assert "written as a.avi.mp4" in result.output


def test_nor_on_a_film_that_has_both_suffixes_or_that_lies_in_the_results_folder(tmp_path, checkpoint):
    out = tmp_path / "out"
    lie_in = {"in/a.avi": 2, "in/a.mp4": 3, "in/a.avi.mp4": 4, "in/sub/b.avi": 5, "out/sub/b.mp4": 6}
    for name, frames in lie_in.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        film = write_film(tmp_path / "film.mkv", panning(frames), range(frames), Fraction(1, 25))
        film.rename(tmp_path / name)
    given = (out / "sub" / "b.mp4").read_bytes()
    common = ["--checkpoint", checkpoint, "--device", "cpu", "--out"]
    result = invoke("predict", tmp_path / "in", out / "sub" / "b.mp4", *common, out)
    assert result.exit_code == 0, result.output
    assert (out / "sub" / "b.mp4").read_bytes() == given
    (out / "sub" / "b.mp4").unlink()
    frames = {str(p.relative_to(out)): len(read_film(p)[0]) for p in out.rglob("*.mp4")}
    assert frames == {
        "a.avi.mp4.mp4": 2,
        "a.mp4": 3,
        "a.avi.mp4": 4,
        "sub/b.avi.mp4": 5,
        "b.mp4": 6,
    }


def test_side_by_side_and_smoothing_together(tmp_path):
    """Left the decoded frames untouched, right the restored ones, in step though smoothing holds frames back."""
    film = write_film(tmp_path / "a.mp4", panning(6))
    restore_video(film, tmp_path / "b.mp4", lambda x: 255 - x, temporal=3, side_by_side=True)
    (before, _, a), (after, _, b) = read_film(film), read_film(tmp_path / "b.mp4")
    assert a.rate == b.rate == 25 and [s.duration * b.time_base for s in after] == [Fraction(1, 25)] * 6
    assert len(after) == 6 and after[0].rgb.shape == (96, 256, 3)
    for x, y in zip(before, after, strict=True):
        assert close_to(y.rgb[:, :128], x.rgb)[0] < 2
        assert close_to(y.rgb[:, 128:], 255 - x.rgb)[0] < 4


def damaged(path: Path, at: float, count: int = 4000) -> None:
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + count] = bytes(255 - b for b in data[start : start + count])
    path.write_bytes(data)


def test_damage_is_counted_and_the_rest_restored(tmp_path, checkpoint):
    """A file with bad bytes in the middle, and one that ends early: restored as far as can be, said, exit status 1."""
    rng = np.random.default_rng(0)
    busy = [rng.integers(0, 256, (96, 128, 3)).astype(np.uint8) for _ in range(12)]
    bad = write_film(tmp_path / "bad.mkv", busy)
    damaged(bad, 0.7)
    cut = write_film(tmp_path / "cut.mp4", busy)
    restore_video(cut, tmp_path / "early.mp4", same)  # its index comes first, so that its start can be read
    whole = (tmp_path / "early.mp4").read_bytes()
    (tmp_path / "early.mp4").write_bytes(whole[: len(whole) // 2])
    result = invoke(
        "predict",
        bad,
        tmp_path / "early.mp4",
        "--checkpoint",
        checkpoint,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    words = result.output.replace("\n", " ")
    assert (
        "damaged packets" in words
        and "of 12 frames are missing" in words
        and "2 damaged of 2 inputs" in words
    )
    kept = read_film(tmp_path / "out" / "bad.mkv")[0]
    times = [round(s.pts * 0.6) for s in kept]
    assert 0 < len(kept) < 12 and all(t % 24 == 0 for t in times), "what is left keeps its time"
    assert 0 < len(read_film(tmp_path / "out" / "early.mp4")[0]) < 12


def sound_only(path: Path) -> None:
    write_film(path, panning(3), sound="aac")
    film = path.with_name("x.mp4")
    path.rename(film)
    with av.open(str(film)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(given.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    film.unlink()


@pytest.mark.parametrize("kind", ["sound only", "cut before its index", "text", "empty", "a playlist"])
def test_what_is_no_video_ends_in_one_line(tmp_path, checkpoint, kind):
    path = tmp_path / "x y.mp4"
    if kind == "sound only":
        sound_only(path)
    elif kind == "cut before its index":
        write_film(path, panning(5))
        path.write_bytes(path.read_bytes()[:2000])
    else:
        text = {
            "text": "hello" * 99,
            "empty": "",
            "a playlist": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        }
        path.write_text(text[kind])
    result = invoke("predict", path, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert "x y.mp4: " in result.output and "1 failed of 1 input;" in result.output
    assert not list((tmp_path / "out").iterdir())
    if kind == "sound only":
        assert "no video stream" in result.output


def test_encoders(tmp_path, monkeypatch):
    """An unknown encoder is refused before any work; where FFmpeg lacks the usual one, the next is taken and named."""
    film = write_film(tmp_path / "a.mp4", panning(3))
    with pytest.raises(VideoError, match="no such encoder"):
        choose_codec("libnothing")
    with pytest.raises(VideoError, match="not a video encoder"):
        choose_codec("aac")
    monkeypatch.setattr("deblur_train.media.codec.FALLBACKS", ("libmissing", "mpeg4"))
    result = restore_video(film, tmp_path / "b.mp4", same)
    assert any("no libmissing: encoded with mpeg4" in n for n in result.notes)
    assert close_to(read_film(film)[0][2].rgb, read_film(tmp_path / "b.mp4")[0][2].rgb)[0] < 6


def test_an_encoder_gets_the_container_and_the_pixels_that_it_takes(tmp_path, checkpoint):
    """ProRes stands in no mp4 and has no 4:2:0; what can be written nowhere is said before work or for its file."""
    film = write_film(tmp_path / "a.mp4", panning(3))
    result = restore_video(film, tmp_path / "b.mp4", same, encoding=Encoding("prores_ks"))
    assert result.written == tmp_path / "b.mkv" and "b.mkv: .mp4 cannot hold prores_ks" in result.notes[0]
    shots, _, reader = read_film(result.written)
    assert len(shots) == 3 and reader.facts().chroma == "422" and shots[0].rgb.dtype == np.uint16
    assert close_to(read_film(film)[0][1].rgb, shots[1].rgb / 257)[0] < 3
    common = (film, "--checkpoint", checkpoint, "--device", "cpu")
    for codec, words in (
        ("png", "takes none of the pixels"),
        ("mjpeg", "cannot be encoded by mjpeg; try another"),
    ):
        done = invoke("predict", *common, "--out", tmp_path / codec, "--video-codec", codec)
        assert done.exit_code == 1 and words in " ".join(done.output.split()), done.output
        assert isinstance(done.exception, SystemExit)
    live = ("--live", "--out", tmp_path / "l.mp4", "--video-codec", "prores_ks")
    done = invoke("predict", *common, *live)
    assert done.exit_code == 1 and "prores_ks cannot be written into .mp4" in done.output, done.output


def test_an_error_on_the_way_leaves_the_old_result(tmp_path):
    """Whatever the network raises ends all threads and leaves what stood under the final name."""
    film = write_film(tmp_path / "a.mp4", panning(8))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mp4").write_bytes(b"old")
    count = itertools.count()

    def breaks(rgb: np.ndarray) -> np.ndarray:
        if next(count) == 4:
            raise VideoError("the network broke")
        return rgb

    with pytest.raises(VideoError, match="the network broke"):
        restore_video(film, out / "a.mp4", breaks, temporal=3)

    def stops(expected: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(film, out / "a.mp4", same, progress=stops)
    assert [p.name for p in out.iterdir()] == ["a.mp4"] and (out / "a.mp4").read_bytes() == b"old"


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["KILL", "TERM", "INT"])
def test_killed_halfway_leaves_nothing_broken(tmp_path, checkpoint, signal):
    """The final name does not exist while the file is written; SIGTERM and Ctrl-C clean up after themselves too."""
    film = write_film(tmp_path / "a.mp4", panning(200, height=192, width=256))
    out = tmp_path / "out"
    program = (
        "import sys, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from deblur_train.cli.main import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "predict", str(film), "--checkpoint", str(checkpoint)]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 300
        while not (out.is_dir() and any(p.stat().st_size > 0 for p in out.iterdir())):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal({"KILL": 9, "TERM": 15, "INT": 2}[signal])
        words = process.communicate(timeout=300)[0].decode()
    finally:
        process.kill()
    assert not (out / "a.mp4").exists() and process.returncode != 0
    if signal != "KILL":
        assert process.returncode == 1 and "interrupted" in words and "Traceback" not in words
        assert not list(out.iterdir())


def test_ahead_keeps_order_and_errors_and_stops():
    """A stage in a thread gives what the loop would; closing it ends a source that never ends."""
    assert list(ahead(range(100), depth=3)) == list(range(100))

    def fails():
        yield 1
        raise ValueError("here")

    got = ahead(fails())
    assert next(got) == 1
    with pytest.raises(ValueError, match="here"):
        next(got)
    closed = []

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    numbers = ahead(ahead(endless()))
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    numbers.close()
    deadline = time.monotonic() + 10
    while not closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed


def test_reader_gives_shots_in_order(tmp_path):
    film = write_film(tmp_path / "a.mp4", panning(5))
    with VideoReader(film) as reader:
        assert reader.expected == 5
        pts = [x.pts for x in reader if isinstance(x, Shot)]
    assert pts == sorted(pts) and len(pts) == 5 and reader.damaged == reader.missing == 0


def colour_waves(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture whose colours are waves of 32 px across and 24 px down, and the two waves as phasors."""
    y, x = np.mgrid[:height, :width] * 1.0
    across, down = 2 * np.pi * x / 32, 2 * np.pi * y / 24
    wave = 40 * np.sin(across) + 30 * np.sin(down)
    rgb = np.rint(np.dstack([128 + wave, 128 - 0.15 * wave, 128 - wave])).astype(np.uint8)
    return rgb, np.exp(-1j * across), np.exp(-1j * down)


def colour_shift(rgb: np.ndarray) -> tuple[float, float]:
    """How far the colours of ``colour_waves`` have moved, px to the right and down; whole waves, away from the borders."""
    want, across, down = colour_waves()
    part = (slice(12, 84), slice(16, 112))
    found = []
    for phasor, length in ((across, 32), (down, 24)):
        angle = [np.angle(((x[..., 0] * 1.0 - x[..., 2]) * phasor)[part].sum()) for x in (rgb, want)]
        found.append(-float(np.angle(np.exp(1j * (angle[0] - angle[1])))) * length / 2 / np.pi)
    return found[0], found[1]


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        ("yuv420p", "left"),
        ("yuv420p", "center"),
        ("yuv420p", "topleft"),
        ("yuv422p", "left"),
        ("yuv444p", "left"),
    ],
)
def test_colours_stay_in_place_over_ten_passes(tmp_path, layout, place):
    """Wherever the source's chroma samples stand: within 0.05 px after ten passes of an identity, and the layout stays.
    (A writer that centres them moves the colours by half a pixel each time the file is read as it is meant to be.)"""
    rgb = colour_waves()[0]
    film = write_film(tmp_path / "0.mkv", [rgb] * 2, pix_fmt=layout, chroma=place)
    for n in range(1, 11):
        result = restore_video(film, tmp_path / f"{n}.mkv", same, encoding=Encoding(crf=4))
        film = result.written
        assert not result.notes
    shots, _, reader = read_film(film)
    assert max(map(abs, colour_shift(shots[0].rgb))) < 0.05
    assert reader.facts().chroma == layout[3:6]


def test_colours_that_lose_resolution_are_said(tmp_path):
    """RGB, and layouts that the encoder lacks, become 4:2:0, and a note says so."""
    film = write_film(tmp_path / "a.mkv", [texture()] * 2, pix_fmt="bgr0", codec="ffv1")
    assert "colours written as 4:2:0 of RGB" in " ".join(restore_video(film, tmp_path / "b.mkv", same).notes)
    film = write_film(tmp_path / "c.mkv", [texture()] * 2, pix_fmt="yuv444p")
    notes = restore_video(film, tmp_path / "d.mkv", same, encoding=Encoding("mpeg4")).notes
    assert "colours written as 4:2:0 of 4:4:4: mpeg4 has no other" in " ".join(notes)


@pytest.mark.parametrize(
    ("pixels", "codec", "encoder", "said"),
    [
        ("yuva420p", "ffv1", None, ["transparency left out: the result holds none"]),
        ("yuva420p", "libvpx-vp9", None, ["transparency left out: the result holds none"]),
        (
            "bgra",
            "ffv1",
            None,
            ["colours written as 4:2:0 of RGB: players know no RGB", "transparency left out"],
        ),
        ("yuv420p12le", "ffv1", None, ["written with 10 bits of 12"]),
        ("yuv420p10le", "ffv1", "mpeg4", ["written with 8 bits of 10"]),
        ("yuv420p10le", "ffv1", None, []),
    ],
)
def test_depth_and_transparency_that_are_lost_are_said(tmp_path, pixels, codec, encoder, said):
    film = write_film(tmp_path / "a.mkv", [texture()] * 2, pix_fmt=pixels, codec=codec)
    notes = restore_video(film, tmp_path / "b.mkv", same, encoding=Encoding(encoder)).notes
    assert len(notes) == len(said) and all(w in n for w, n in zip(said, notes, strict=True)), notes


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_chapters_titles_and_languages_are_kept(tmp_path, suffix):
    plain, film = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_film(plain, panning(6), sound="aac")
    chapters = [
        {
            "id": i,
            "start": 100 * i,
            "end": 100 * i + 100,
            "time_base": Fraction(1, 1000),
            "metadata": {"title": name},
        }
        for i, name in enumerate(("one", "two"))
    ]
    with av.open(str(plain)) as source, av.open(str(film), "w") as out:
        tracks = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for n, track in tracks.items():
            track.metadata.update({"language": ("deu", "fra")[n], "title": f"track {n}"})
        out.set_chapters(chapters)
        for packet in source.demux():
            if packet.size:
                packet.stream = tracks[packet.stream.index]
                out.mux(packet)
    result = restore_video(film, tmp_path / f"c{suffix}", same)
    assert not result.notes
    with av.open(str(result.written)) as got:
        streams = [s for s in got.streams if s.type != "data"]
        assert [s.metadata["language"] for s in streams] == ["deu", "fra"]
        titles = [s.metadata.get("title", s.metadata.get("name")) for s in streams]
        assert titles == ["track 0", "track 1"]
        times = [(c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in got.chapters()]
    assert times == [("one", 0.0), ("two", pytest.approx(0.1))]


def test_nafnet_restores_every_frame_of_a_film_as_it_does_pictures(tmp_path):
    """Each frame comes out as the network gives it alone, within the codec; it darkens, so that a frame left as it was shows."""
    torch.manual_seed(0)
    net = build_generator("nafnet", NAFNetShape(width=4, enc=(1, 1), middle=1, dec=(1, 1)))
    start_near_identity(net, 0.0)
    with torch.no_grad():
        net.ending.bias.fill_(-0.1)
    save_generator(tmp_path / "n.safetensors", "nafnet", net.state_dict())
    film = write_film(tmp_path / "a.mp4", panning(5), [0, 24, 60, 61, 96], sound="aac")
    result = invoke(
        "predict",
        film,
        "--checkpoint",
        tmp_path / "n.safetensors",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert "1 video (5 frames) restored" in result.output
    before, sound, a = read_film(film)
    after, sound_after, b = read_film(tmp_path / "out" / "a.mp4")
    assert sound == sound_after and [s.pts * a.time_base for s in before] == [
        s.pts * b.time_base for s in after
    ]
    restorer = load_restorer(tmp_path / "n.safetensors")
    for x, y in zip(before, after, strict=True):
        want = restorer(x.rgb)
        assert close_to(x.rgb, want)[0] > 5, "the network changes the frame"
        mean, bias = close_to(want, y.rgb)
        assert mean < 3 and bias < 0.5
