"""How video is encoded: the encoder, the pixels that it is given, its quality."""

from __future__ import annotations

from dataclasses import dataclass

import av

from deblur_train.media.video_in import VideoError

LAYOUTS = ("yuv420p", "yuv422p", "yuv444p")
FALLBACKS = ("libx264", "libopenh264", "h264_videotoolbox", "mpeg4")  # the first that this FFmpeg has


@dataclass(frozen=True)
class Encoding:
    """How a result is encoded: ``codec`` as FFmpeg names its encoder (None: H.264, else the best there is)."""

    codec: str | None = None
    crf: int = 16  # constant rate factor: lower is better and larger; about invisible at 16 to 18


def choose_codec(wanted: str | None) -> tuple[str, str]:
    """(encoder, note). Raises VideoError for an encoder that this FFmpeg lacks."""
    for name in (wanted,) if wanted else FALLBACKS:
        try:
            codec = av.Codec(name, "w")
            if codec.type != "video":
                raise VideoError(f"--video-codec {name}: not a video encoder")
            if codec.video_formats and not _layouts(name):
                raise VideoError(
                    f"--video-codec {name}: takes none of the pixels that are written here (4:2:0, 4:2:2, 4:4:4); try "
                    "libx264, libx265 or prores_ks"
                )
        except av.codec.codec.UnknownCodecError:
            continue
        note = (
            ""
            if wanted or name == FALLBACKS[0]
            else f"this FFmpeg has no {FALLBACKS[0]}: encoded with {name}"
        )
        return name, note
    raise VideoError(
        f"--video-codec {wanted or FALLBACKS[0]}: this FFmpeg has no such encoder; try libx264, libx265 or mpeg4"
    )


def encoder_pixels(codec: str, width: int, height: int, wide: bool, chroma: str) -> str:
    """FFmpeg's name of the pixels to encode: the source's layout where the encoder has it, else 4:2:0 as every player
    takes it, else a finer one; 4:4:4 for odd sides, which the others cannot hold; 10 bits for sources that have them, and
    where the encoder has no others."""
    known = _layouts(codec)
    odd = width % 2 or (height % 2 and chroma != "422")
    depths = ("10le", "") if wide else ("", "10le")
    layouts = ("yuv444p" if odd else f"yuv{chroma}p", *LAYOUTS)
    return next((f"{x}{depth}" for x in layouts for depth in depths if f"{x}{depth}" in known), "yuv420p")


def _layouts(codec: str) -> set[str]:
    """The pixels that an encoder takes, of those that are written here."""
    own = {f"{x}{depth}" for x in LAYOUTS for depth in ("", "10le")}
    return own & {f.name for f in av.Codec(codec, "w").video_formats or ()}


def quality_options(codec: str, crf: int) -> dict[str, str]:
    """What an encoder calls its constant quality."""
    if codec in ("libx264", "libx265"):
        return {"crf": str(crf), "preset": "medium"}
    if codec in ("libsvtav1", "libvpx-vp9", "libaom-av1"):
        return {"crf": str(crf), "b": "0"}
    return {"qmin": "1", "qmax": str(max(2, crf // 6))}  # quantiser scale of the older codecs
