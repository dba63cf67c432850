"""The ``blursynth`` command: a thin layer over the Python functions of the same names."""

from __future__ import annotations

import click

from blursynth import __version__
from blursynth.cli.checks import audit_command, explain_command, inspect_command, verify_command
from blursynth.cli.exchange import match_command, pack_command, unpack_command
from blursynth.cli.make import make_command, recipes_command
from blursynth.common.command import CONTEXT, Commands


class Blursynth(Commands):
    stopped = "stopped; finished shards are kept, and the same command goes on from there"


@click.group(cls=Blursynth, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="blursynth")
def main() -> None:
    """Make training pairs for deblurring networks: realistic motion blur from high-frame-rate video, as WebDataset shards."""


for command in (
    make_command,
    recipes_command,
    audit_command,
    inspect_command,
    verify_command,
    explain_command,
    pack_command,
    unpack_command,
    match_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
