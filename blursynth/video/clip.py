"""Frames out of video files and frame folders: the front door of everything that decodes.

A frame's bytes depend on the source's bytes alone: not on where a read starts, nor on the worker. PyAV decodes
by default. On whole files of 8-bit 4:2:0 PyAV, decord and OpenCV give equal RGB (all hand libswscale the stream's
matrix and range), PyAV is the fastest of them, and only PyAV can be made to say which frames are damaged.

Nothing here raises for bad data once a clip is probed: a frame that cannot be trusted comes as ``fault``, and
what follows it in the same group of pictures does too, because a decoder would build it from the damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import numpy as np

from blursynth.camera.hdr import Transfer, codes_to_light, split_at_white
from blursynth.camera.response import HDR
from blursynth.recipe import Recipe
from blursynth.shards.picture import to_8_bits
from blursynth.video.film import decord_installed, probe_film, read_film
from blursynth.video.frame import ClipError, ClipInfo, Frame
from blursynth.video.packets import packet_index
from blursynth.video.stills import (
    colour_of,
    is_float,
    is_readable,
    photo_size,
    read_codes,
    read_light,
    read_photo,
    spread,
    still_size,
    unread_tiff,
    usual_size,
)
from blursynth.video.takes import folder_order, frame_files

__all__ = [
    "ClipError",
    "ClipInfo",
    "Frame",
    "decode_with",
    "probe_clip",
    "probe_still",
    "read_as",
    "read_frames",
]

DecoderChoice = Literal["auto", "pyav", "decord"]
OFF = 0.01
"""A rate that differs by more than this share from the file's own is worth a warning: 29.97 is 30 to anybody."""


def probe_clip(path: Path | str, fps: float | None = None, deinterlace: bool = False) -> ClipInfo:
    """Size, rate, frame count and curve of a video file or a folder of frames. Raises ClipError.

    Reads headers (or demuxes, where the header holds no count) and decodes one frame. ``fps`` is used where the
    source does not say. Interlaced film is refused unless ``deinterlace`` makes a frame of each field.
    """
    path = Path(path).absolute()
    if path.is_dir():
        return _probe_folder(path, fps)
    try:
        if path.stat().st_size == 0:
            raise ClipError(path, "the file is empty", "copy or record it again", "empty")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ClipError(path, "no such file", "check the path", "missing") from None
    except OSError as e:
        raise ClipError(path, f"cannot be opened ({e.strerror})", "check its permissions") from None
    return probe_film(path, fps, deinterlace)


def decode_with(info: ClipInfo, choice: DecoderChoice) -> ClipInfo:
    """The clip through decord where that was asked for and gives the same frames; else through PyAV.

    decord reads forward from frame 0 only and cannot see damage. Raises ClipError where it is not installed.
    """
    if choice != "decord" or info.kind != "video":
        return info
    if not decord_installed():
        raise ClipError(
            info.path, "decord is not installed on this machine", "leave --decoder out", "no decoder"
        )
    able = info.plain and not info.deinterlaced and packet_index(info.path).seekable
    return replace(info, decoder="decord") if able else info


def read_as(info: ClipInfo, recipe: Recipe) -> tuple[ClipInfo, list[str]]:
    """The clip as a recipe has it read, and where that goes against what the file says, in words.

    ``fps`` stands above the file's rate, ``fps_unknown`` below it. ``crf = "auto"`` follows the file's tag; pq, hlg or
    linear is read as that, whatever the tag; any other curve takes the codes as they are.
    """
    warnings = []
    if recipe.fps and info.fps and abs(recipe.fps / info.fps - 1) > OFF:
        warnings.append(f"says {info.fps:.6g} fps, taken for {recipe.fps:g}")
    info = replace(info, fps=recipe.fps or info.fps or recipe.fps_unknown)
    if recipe.crf == "auto" or recipe.crf == info.transfer:
        return info, warnings
    if info.transfer == "linear" and info.kind == "frames":
        told = f"holds linear light: it becomes sRGB codes, which crf {recipe.crf} takes for its own; leave crf out"
        if recipe.crf in HDR:
            told = f"holds linear light, to which crf {recipe.crf} does not apply"
        return info, [*warnings, told]
    if info.transfer != "srgb":
        warnings.append(f"says its curve is {info.transfer}, read as {recipe.crf}")
    if recipe.crf in HDR:
        return replace(info, transfer=cast(Transfer, recipe.crf)), warnings
    return replace(info, transfer="srgb", gamut="bt709"), warnings


def read_frames(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    """Every frame ``first..last`` (both in) once, in order. Never raises for bad data; memory stays flat.

    A run that starts where the last one of this process stopped goes on decoding from there. Raises ValueError
    for a range outside the clip.
    """
    if not 0 <= first <= last < info.frames:
        raise ValueError(f"{info.path}: frames {first}..{last} are not within 0..{info.frames - 1}")
    if info.kind == "still":
        yield _read_still(info)
        return
    yield from _read_folder(info, first, last) if info.kind == "frames" else read_film(info, first, last)


# Single pictures


def probe_still(path: Path | str) -> ClipInfo:
    """A single picture as a clip of one frame; its header is read. Raises ClipError."""
    path = Path(path).absolute()
    size = photo_size(path)
    if size is None:
        if kind := unread_tiff(path):
            raise ClipError(path, f"is {kind}", "convert it to RGB of 8 or 16 bits")
        raise ClipError(path, "is not a readable picture", "copy it again, or convert it to PNG or JPEG")
    transfer, _ = colour_of(path)
    if transfer != "srgb":
        raise ClipError(path, f"is a photo with HDR light ({transfer})", "convert it to SDR", "hdr photo")
    return ClipInfo(str(path), "still", 1, None, *size, "image")


def _read_still(info: ClipInfo) -> Frame:
    rgb = read_photo(info.path)
    if rgb is None:
        return Frame(0, None, None, "unreadable")
    if rgb.shape[:2] != (info.height, info.width):
        return Frame(0, None, None, "size")
    return Frame(0, rgb, None, None)


# Folders of frames


def _probe_folder(path: Path, fps: float | None) -> ClipInfo:
    try:
        files = frame_files(path)
    except OSError as e:
        raise ClipError(path, f"cannot be listed ({e.strerror})", "check its permissions") from None
    if not files:
        raise ClipError(
            path, "holds no PNG, JPEG, WebP, BMP, TIFF or EXR frames", "give a folder of frames", "empty"
        )
    if exr := sum(map(is_float, files)) % len(files):
        wrong = f"holds EXR frames ({exr}) and others ({len(files) - exr})"
        raise ClipError(path, wrong, "give each kind a folder of its own", "mixed")
    size = usual_size(files)
    for file in islice((f for f in files if still_size(f) == size), 8):  # the first may be damaged
        if size and is_readable(file):
            colours = {colour_of(f) for f in [file, *spread(files)] if still_size(f) == size}
            if len(colours) > 1:
                wrong = f"holds frames of several curves or primaries ({', '.join(sorted(map(' '.join, colours)))})"
                raise ClipError(path, wrong, "give each kind a folder of its own", "mixed")
            return ClipInfo(str(path), "frames", len(files), fps, *size, "image", *colours.pop())
    if kind := unread_tiff(files[0]):
        raise ClipError(
            path,
            f"holds {files[0].name}, {kind}",
            "convert its frames to EXR (linear light) or to RGB of 16 bits",
        )
    todo = "extract the frames again"
    if is_float(files[0]):
        todo = "write them again, with channels R, G and B of half or 32-bit floats (no layers)"
    raise ClipError(path, f"none of its first {min(8, len(files))} frames can be read", todo)


def _read_folder(info: ClipInfo, first: int, last: int) -> Iterator[Frame]:
    try:
        order = folder_order(info.path)
        names, gaps = order.frames, order.breaks
    except OSError:
        names, gaps = [], frozenset()
    files = [Path(info.path) / n for n in names]
    for i in range(first, last + 1):
        rgb, above = _read_picture(files[i], info) if i < len(files) else (None, None)
        fault = None
        if rgb is None:
            fault = "unreadable"
        elif rgb.shape[:2] != (info.height, info.width):
            rgb, above, fault = None, None, "size"
        time_s = i / info.fps if info.fps else None
        yield Frame(i, rgb, time_s, fault, "gap" if i in gaps else None, info.fps, above)


def _read_picture(file: Path, info: ClipInfo) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A frame as codes, and its light above white, by the clip's curve and primaries."""
    if is_float(file):
        return read_light(file)
    codes = read_codes(file)
    if codes is None:
        return None, None
    if (info.transfer, info.gamut) == ("srgb", "bt709"):
        return to_8_bits(codes), None
    return split_at_white(codes_to_light(codes, info.transfer, info.gamut))
