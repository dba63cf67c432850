"""What several ``deblur-train`` commands share: options, and how an error becomes one line and an exit status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from blursynth.common.command import Commands
from blursynth.common.errors import UserError


class TrainCommands(Commands):
    """``deblur-train``: besides the common errors, torch's own for full memory and for a worker that was killed."""

    stopped = "interrupted"

    def stop_code(self, e: KeyboardInterrupt) -> int:
        return 1

    def told(self, e: Exception) -> UserError | None:
        # torch has a class of its own for a full GPU, and a bare RuntimeError for full memory on a CPU.
        text = str(e)
        if isinstance(e, RuntimeError) and (
            "out of memory" in text.lower() or "can't allocate memory" in text
        ):
            return UserError(
                "out of memory: lower --batch-size or --crop (fit), or give a smaller --tile (predict)"
            )
        if isinstance(e, RuntimeError) and "DataLoader worker" in text:  # raised wherever the main process is
            return UserError(
                "a decoding process was killed (out of memory?); go on with --resume, with fewer --workers"
            )
        if isinstance(e, OSError) and not (e.filename and e.strerror):
            return UserError(f"{e.filename or 'file'}: {e.strerror or e}")
        return super().told(e)


def _shipped() -> str:
    from deblur_train.models.checkpoint import shipped_checkpoint

    return str(shipped_checkpoint())


def checkpoint_option(accepts: str) -> Callable[[Any], Any]:
    """``--checkpoint`` of a command that uses one model; ``accepts`` says which files it takes."""
    return click.option(
        "--checkpoint",
        default=_shipped,
        metavar="FILE",
        help=f"The network to use: {accepts}.  [default: the model that comes with the package]",
    )


def _tile(context: click.Context, parameter: click.Parameter, value: str) -> int | str | None:
    if value in ("auto", "off"):
        return "auto" if value == "auto" else None
    if not value.isdigit() or int(value) < 128:
        raise click.BadParameter("must be auto, off, or a number of pixels of at least 128")
    return int(value)


TILE = click.option(
    "--tile",
    default="auto",
    show_default=True,
    metavar="auto|off|PX",
    callback=_tile,
    help="Restore large pictures in tiles of this many pixels a side, at least 128; auto: only where memory is short.",
)
NORM_STATS = click.option(
    "--norm-stats",
    type=click.Choice(["tracked", "image", "local"]),
    default="tracked",
    show_default=True,
    help="Statistics that the norm layers use. tracked: those of training; image: the picture's own, as official DeblurGAN-v2 checkpoints need; local: those of a window around each pixel (TLC). An exported file has those of its export.",
)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto: on the GPU if there is one.",
)
