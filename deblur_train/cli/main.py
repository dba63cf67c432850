"""The ``deblur-train`` command. Exit status: 0 done, 1 something failed (said what), 2 usage."""

from __future__ import annotations

import click

from blursynth import __version__
from blursynth.common.command import CONTEXT
from deblur_train.cli.evaluate import evaluate_command
from deblur_train.cli.export import bench_command, export_command
from deblur_train.cli.fit import configs_command, fit_command
from deblur_train.cli.predict import predict_command
from deblur_train.cli.shared import TrainCommands


@click.group(cls=TrainCommands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="deblur-train")
def main() -> None:
    """Train a deblurring network on shards, measure it, and use it."""


for command in (
    bench_command,
    configs_command,
    evaluate_command,
    export_command,
    fit_command,
    predict_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
