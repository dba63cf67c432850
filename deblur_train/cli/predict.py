"""``deblur-train predict``: options to the functions of predict.py and live.py, and their results to words."""

from __future__ import annotations

import re
from typing import Any

import click

from blursynth.common.command import Command, say
from blursynth.common.errors import UserError
from blursynth.common.text import counted
from deblur_train.cli.shared import DEVICE, NORM_STATS, TILE, checkpoint_option


def _odd(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value % 2 == 0:
        raise click.BadParameter("must be odd: the frame itself and as many on either side")
    return value


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", value)
    if not found:
        raise click.BadParameter("must be WIDTHxHEIGHT in pixels, for example 1280x720")
    return int(found[1]), int(found[2])


@click.command("predict", cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@checkpoint_option("ours, an official file, or an exported .onnx or .tflite")
@click.option(
    "--out",
    metavar="DIR|FILE",
    help="Folder for the results, which keep the inputs' names; or a file, for one input. With --live: window, a video file, or - for raw RGB frames.  [default: restored]",
)
@TILE
@click.option(
    "--temporal",
    type=click.IntRange(1, 9),
    default=1,
    callback=_odd,
    metavar="N",
    help="Average each frame of a video with its neighbours along the motion, N frames in all, odd: less flicker. Example: 3.  [default: 1, off]",
)
@click.option("--side-by-side", is_flag=True, help="Write the blurred and the restored picture side by side.")
@click.option("--video-codec", metavar="NAME", help="FFmpeg encoder for videos.  [default: libx264]")
@click.option(
    "--crf",
    type=click.IntRange(0, 51),
    default=16,
    show_default=True,
    help="Quality of videos, 0 to 51: lower is better, and a larger file.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Restore a camera or a stream while it runs. Each time the newest frame is restored and the ones before it are dropped. INPUT is the number of a camera (0), a video, an address (rtsp://...), or - for standard input.",
)
@click.option(
    "--live-size",
    callback=_size,
    metavar="WxH",
    help="Width and height of the raw RGB frames on standard input. Example: 1280x720",
)
@NORM_STATS
@DEVICE
def predict_command(
    inputs: tuple[str, ...],
    checkpoint: str,
    out: str | None,
    tile: Any,
    temporal: int,
    side_by_side: bool,
    video_codec: str | None,
    crf: int,
    live: bool,
    live_size: tuple[int, int] | None,
    norm_stats: Any,
    device: str,
) -> None:
    """Restore pictures and videos.

    INPUT: files, folders, globs. Pictures keep orientation, EXIF and colour profile; videos keep sound and frame times.

    \b
    deblur-train predict photo.jpg
    deblur-train predict clips/ --checkpoint runs/first/best.safetensors --out restored
    """
    if live and len(inputs) != 1:
        raise click.UsageError("--live takes one INPUT")
    if live and out is None:
        raise click.UsageError("--live needs --out: window, a video file, or - for raw RGB frames")
    if live_size and (not live or inputs != ("-",)):
        raise click.UsageError("--live-size says what standard input holds: give it with --live and INPUT -")
    folder = out or "restored"

    from blursynth.common.memory import keep_freed_memory
    from deblur_train.distributed import choose_device
    from deblur_train.media.codec import Encoding
    from deblur_train.prediction.predict import Options, predict

    keep_freed_memory(2**31 - 1, one_arena=True)
    options = Options(temporal, side_by_side, Encoding(video_codec, crf))
    device = choose_device(device)
    if live:
        from deblur_train.inference.restorer import load_restorer
        from deblur_train.prediction.live import run_live

        restorer = load_restorer(checkpoint, norm_stats, tile, device)
        say(
            run_live(inputs[0], restorer, folder, options, live_size), err=True
        )  # the frames may go to stdout
        return
    result = predict(list(inputs), checkpoint, folder, tile, norm_stats, device, options=options)
    one = result.written[0] if len(result.written) == 1 else None
    say(f"{result.summary()}: {one}" if one else f"{result.summary()} into {folder}")
    bad = [*result.failed, *result.damaged]
    if bad:
        kinds = [f"{len(result.failed)} failed"] if result.failed else []
        kinds += [f"{len(result.damaged)} damaged"] if result.damaged else []
        whole = len(result.written) + len(result.failed)
        raise UserError(f"{' and '.join(kinds)} of {counted(whole, 'input')}; first: {bad[0]}")
