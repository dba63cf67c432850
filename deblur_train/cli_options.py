"""Options that several ``deblur-train`` commands share."""

from __future__ import annotations

import click

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


def choose_device(wanted: str) -> str:
    """``auto`` to cuda where there is one. Raises TrainError for a device that is not there."""
    from .train import choose_device as choose

    return choose(wanted)
