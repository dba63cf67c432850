"""Small videos with known content, for the tests of predict: made with PyAV, sizes of a few dozen pixels."""

import itertools
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from deblur_train.media.video_in import Shot, VideoReader


def texture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: fine grey blobs on coarse colour, so that codecs and flow can follow them."""
    rng = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(rng.random((height, width, 1)).astype(np.float32), (0, 0), 2.5)[..., None]
    coarse = cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 12)
    layers = [(x - x.mean()) / x.std() for x in (fine, coarse)]
    return np.clip(128 + 35 * layers[0] + 25 * layers[1], 0, 255).astype(np.uint8)


def panning(count: int, step: int = 2, height: int = 96, width: int = 128, seed: int = 0) -> list[np.ndarray]:
    """``count`` frames of a texture that moves ``step`` pixels a frame to the left."""
    wide = texture(height, width + step * count, seed)
    return [np.ascontiguousarray(wide[:, i * step : i * step + width]) for i in range(count)]


def write_film(
    path: Path,
    frames: list[np.ndarray],
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 600),
    sound: str | None = None,
    pix_fmt: str = "yuv420p",
    colour: tuple[int, int, int, int] | None = None,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    chroma: str | None = None,
) -> Path:
    """Encode at 25 frames a second, or at the time stamps given. ``colour``: range, matrix, primaries, transfer.
    ``chroma``: where its samples stand, and are tagged to stand: left, center, topleft."""
    pts = pts or [24 * i for i in range(len(frames))]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        context = stream.codec_context
        context.width, context.height = frames[0].shape[1], frames[0].shape[0]
        context.pix_fmt, context.time_base = pix_fmt, time_base
        if aspect:
            context.sample_aspect_ratio = aspect
        if colour:
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = colour
        context.options = {"crf": "10"} if codec == "libx264" else {}
        if chroma:
            context.options |= {"chroma_sample_location": chroma}
        tone = out.add_stream(sound, rate=48000, bit_rate=128_000) if sound else None
        for rgb, at in zip(frames, pts, strict=True):
            kind = "rgb48le" if rgb.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(rgb, format=kind)
            if colour:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=1 if colour[1] == 1 else 5, dst_color_range=colour[0]
                )
                frame.color_range, frame.colorspace = colour[0], colour[1]
            if chroma:
                frame = _placed(frame, pix_fmt, chroma)
            frame.pts, frame.time_base = at, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone:
            for packet in _beeps(tone, seconds=float((pts[-1] + 24) * time_base)):
                out.mux(packet)
    return path


def _placed(frame: av.VideoFrame, pix_fmt: str, chroma: str) -> av.VideoFrame:
    """RGB to ``pix_fmt`` with the chroma samples at their place."""
    graph = av.filter.Graph()
    flags = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    steps = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
        ),
        graph.add("scale", f"{flags}:out_color_matrix=bt601:out_range=limited:out_chroma_loc={chroma}"),
        graph.add("format", pix_fmt),
        graph.add("buffersink"),
    ]
    for one, other in itertools.pairwise(steps):
        one.link_to(other)
    graph.configure()
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    graph.push(frame)
    placed = graph.pull()
    placed.pict_type = 0
    return placed


def _beeps(stream, seconds: float):
    samples = (0.3 * np.sin(np.arange(int(48000 * seconds)) * 0.05)).astype(np.float32)
    size = stream.codec_context.frame_size or 1024
    for i in range(0, len(samples) - size, size):
        frame = av.AudioFrame.from_ndarray(np.tile(samples[i : i + size], (2, 1)), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, i, Fraction(1, 48000)
        if stream.codec_context.format.name != "fltp":
            frame = av.AudioResampler(format=stream.codec_context.format.name).resample(frame)[0]
        yield from stream.encode(frame)
    yield from stream.encode(None)


def read_film(path: Path) -> tuple[list[Shot], list[bytes], VideoReader]:
    """(shots, sound packets' bytes, the reader, closed)."""
    shots, sound = [], []
    with VideoReader(path) as reader:
        for item in reader:
            if isinstance(item, Shot):
                shots.append(item)
            else:
                sound.append((bytes(item), float(item.pts * item.time_base)))
    return shots, sound, reader


def rotated(path: Path, turn: str) -> None:
    """Write a display matrix into an mp4's track header, as phones do; degrees are clockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + (52 if data[at] == 1 else 40)
    a, b, c, d = {
        "90": (0, 1, -1, 0),
        "180": (-1, 0, 0, -1),
        "270": (0, -1, 1, 0),
        "mirrored": (-1, 0, 0, 1),
        "upside-down": (1, 0, 0, -1),
        "transposed": (0, 1, 1, 0),
    }[turn]
    for i, v in zip((0, 1, 3, 4), (a, b, c, d), strict=True):
        data[matrix + 4 * i : matrix + 4 * i + 4] = (v << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
