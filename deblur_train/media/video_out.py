"""Video files out: frames encoded with their own time stamps and colour tags, other streams copied packet by packet."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from blursynth.common.atomic import part_beside
from deblur_train.media.codec import Encoding, choose_codec, encoder_pixels, quality_options
from deblur_train.media.video_in import Shot, VideoError, VideoFacts, VideoReader, reason

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# swscale's name for a stream's matrix (H.273); what is unspecified is BT.601 to every FFmpeg tool.
MATRIX = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
# Where the chroma samples of what is written stand: beside every second pixel of a row, as H.264, HEVC and MPEG-4 mean
# it when nothing is said. Readers take it so; written centred, each pass would move the colours by half a pixel.
CHROMA_PLACE = "left"
FULL = 2  # range of codes
# A track's tags that speak of the file it was in, not of the track.
OF_THE_FILE = (
    "duration",
    "encoder",
    "handler_name",
    "vendor_id",
    "bps",
    "number_of_frames",
    "number_of_bytes",
)


def place_for(
    target: Path, reader: VideoReader, avoid: Collection[Path] = (), encoder: str | None = None
) -> tuple[Path, list[Any], list[str]]:
    """(target, streams to copy, notes): a suffix whose container takes the encoder's video and the streams: as it is, else
    .mp4, else .mkv. Raises VideoError where none takes the video.

    Streams that none takes stay behind. ``avoid``: files that a name with another suffix must not be; both suffixes
    are kept then, and the new one put again until the name is free: ``film.avi.mp4``, ``film.avi.mp4.mp4``.
    """
    own = target.suffix.lower()
    codec = av.Codec(choose_codec(encoder)[0], "w")
    known = [s for s in dict.fromkeys([own, ".mp4", ".mkv"]) if s in CONTAINERS]
    choices = [s for s in known if holds(CONTAINERS[s], codec)]
    if not choices:
        raise VideoError(
            f"{target}: {codec.name} can be written into no {' or '.join(known)}; give another --video-codec"
        )
    taken = {s: [x for x in reader.copied if holds(CONTAINERS[s], x.codec_context.codec)] for s in choices}
    best = max(choices, key=lambda s: len(taken[s]))  # the first of the best
    notes = []
    if best != own:
        why = "cannot hold its sound or subtitles" if own in choices else f"cannot hold {codec.name}"
        why = why if own in CONTAINERS else "is not written"
        path = target.with_suffix(best)
        occupied = {other.resolve() for other in avoid}
        while path.resolve() in occupied:
            path = target = target.with_name(target.name + best)
        notes.append(f"written as {path.name}: {own or 'a file without suffix'} {why}")
        target = path
    lost = [*reader.left_out, *(x for x in reader.copied if x not in taken[best])]
    if lost:
        kinds = sorted(
            {f"{x.type}" if x.codec_context is None else f"{x.type} {x.codec_context.name}" for x in lost}
        )
        notes.append(f"{len(lost)} streams left out ({', '.join(kinds)})")
    return target, taken[best], notes


def holds(container: str, codec: av.Codec) -> bool:
    """Whether FFmpeg writes streams of this codec into this container."""
    with av.open(io.BytesIO(), "w", format=container) as probe:  # listed under either name
        return bool({codec.name, codec.canonical_name} & probe.supported_codecs)


class VideoWriter:
    """Encodes into an open file: ``write`` shots, ``copy`` packets of the reader's other streams, then ``close``."""

    def __init__(
        self,
        part: Path,
        suffix: str,
        facts: VideoFacts,
        first: np.ndarray,
        encoding: Encoding,
        copied: Iterable[Any] = (),
        metadata: dict[str, str] | None = None,
    ) -> None:
        height, width = first.shape[:2]
        codec, note = choose_codec(encoding.codec)
        self.notes = [note] if note else []
        options = {"movflags": "+faststart"} if suffix != ".mkv" else {}
        self.container = av.open(f"file:{part}", "w", format=CONTAINERS[suffix], options=options)
        self.container.metadata.update(metadata or {})
        stream = cast(av.VideoStream, self.container.add_stream(codec, rate=facts.rate))
        context = stream.codec_context
        context.width, context.height = width, height
        context.time_base = stream.time_base = facts.time_base
        context.sample_aspect_ratio = facts.aspect
        wide = first.dtype.itemsize > 1
        context.pix_fmt = pixels = encoder_pixels(codec, width, height, wide, facts.chroma)
        if not pixels.startswith(f"yuv{facts.chroma}p"):
            why = f"{codec} has no other" if facts.chroma != "rgb" else "players know no RGB"
            said = f"colours written as 4:2:0 of {CHROMA_WORDS[facts.chroma]}: {why}"
            self.notes += [said] if pixels.startswith("yuv420p") else []
        held = av.VideoFormat(pixels).components[0].bits
        if held < facts.bits:
            self.notes.append(f"written with {held} bits of {facts.bits}")
        if facts.alpha:
            self.notes.append("transparency left out: the result holds none")
        self.colour = facts.colour
        context.color_range, context.colorspace = self.colour.range, self._tagged_matrix()
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        context.options = quality_options(codec, encoding.crf) | {"chroma_sample_location": CHROMA_PLACE}
        self.stream = stream
        self.others = {s.index: self.container.add_stream_from_template(s) for s in copied}
        self._given = "rgb48le" if wide else "rgb24"
        limits = "full" if self.colour.range == FULL else "limited"
        self._convert = _converter(
            self._given,
            width,
            height,
            facts.time_base,
            MATRIX.get(self.colour.matrix, "bt601"),
            limits,
            pixels,
        )

    def label(self, reader: VideoReader) -> None:
        """Titles and languages of the tracks, and the chapters, as the source has them. Before the first frame."""
        pairs = [
            (reader.stream, self.stream),
            *((s, self.others[s.index]) for s in reader.copied if s.index in self.others),
        ]
        for source, target in pairs:
            target.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in OF_THE_FILE})
            if "name" in source.metadata:  # as mp4 calls a track's title when it is read
                target.metadata["title"] = source.metadata["name"]
        chapters = reader.chapters
        if chapters and hasattr(self.container, "set_chapters"):
            self.container.set_chapters(chapters)
        elif chapters:
            self.notes.append(f"{len(chapters)} chapters left out: this PyAV cannot write them")

    def _tagged_matrix(self) -> int:
        return 2 if self.colour.matrix == 0 else self.colour.matrix  # 0: it was RGB, and is none any more

    def write(self, shot: Shot) -> None:
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot.rgb), format=self._given)
        rgb.pts, rgb.time_base = shot.pts, self.stream.codec_context.time_base
        self._convert.push(rgb)
        frame = cast(av.VideoFrame, self._convert.pull())
        frame.pts, frame.time_base = shot.pts, self.stream.codec_context.time_base
        if shot.duration and hasattr(frame, "duration"):
            frame.duration = shot.duration
        frame.color_range, frame.colorspace = self.colour.range, self._tagged_matrix()
        frame.pict_type = 0
        self.container.mux(self.stream.encode(frame))

    def copy(self, packet: av.Packet) -> None:
        packet.stream = self.others[packet.stream.index]
        self.container.mux(packet)

    def close(self) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()


CHROMA_WORDS = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4", "rgb": "RGB"}


def _converter(
    given: str, width: int, height: int, time_base: Fraction, matrix: str, limits: str, pixels: str
) -> av.filter.Graph:
    """RGB to the encoder's pixels by swscale, which puts the chroma samples where it is told only as a filter."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat(given), time_base=time_base)
    scale = graph.add(
        "scale",
        f"flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix={matrix}:out_range={limits}:"
        f"out_chroma_loc={CHROMA_PLACE}",
    )
    shape, sink = graph.add("format", pixels), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(shape)
    shape.link_to(sink)
    graph.configure()
    return graph


def write_video(
    target: Path,
    items: Iterable[Shot | av.Packet],
    reader: VideoReader,
    copied: list[Any],
    encoding: Encoding,
) -> tuple[int, list[str]]:
    """Encode ``items`` (shots of ``reader``, changed; packets of its other streams) to ``target``: (frames, notes).

    Atomic: whatever ends it early, nothing stands under ``target`` that was not there before. Raises VideoError.
    """
    frames, early, writer = 0, [], None
    try:
        with part_beside(target) as part:
            for item in items:
                if isinstance(item, av.Packet):
                    if item.stream not in copied:
                        continue
                    if writer:
                        writer.copy(item)
                    else:
                        early.append(item)  # streams are declared with the first frame's size
                    continue
                if writer is None:
                    tags = dict(reader.container.metadata)
                    writer = VideoWriter(
                        part, target.suffix.lower(), reader.facts(), item.rgb, encoding, copied, tags
                    )
                    writer.label(reader)
                    for packet in early:
                        writer.copy(packet)
                writer.write(item)
                frames += 1
            if writer is None:
                raise VideoError(f"{reader.name}: no frame in it can be decoded")
            writer.close()
    except av.error.FFmpegError as e:
        other = f" by {encoding.codec}; try another --video-codec" if encoding.codec else ""
        raise VideoError(f"{target}: cannot be encoded{other}: {reason(e)}") from None
    return frames, writer.notes
