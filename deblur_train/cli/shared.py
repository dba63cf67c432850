"""Options that several ``deblur-train`` commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from deblur_train.models.checkpoint import shipped_checkpoint


def checkpoint_option(accepts: str) -> Callable[[Any], Any]:
    """``--checkpoint`` of a command that uses one model; ``accepts`` says which files it takes."""
    return click.option(
        "--checkpoint",
        default=lambda: str(shipped_checkpoint()),
        metavar="C",
        show_default="the model that comes with the package",
        help=f"Generator: {accepts}.",
    )


NORM_STATS = click.option(
    "--norm-stats",
    type=click.Choice(["tracked", "image", "local"]),
    default="tracked",
    show_default=True,
    help="Norm layers use running statistics, the image's own (as official inference does), or local windows' (TLC).",
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
