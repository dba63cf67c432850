"""Click commands that end in one line and an exit code, never in a traceback for a person's mistake."""

from __future__ import annotations

import atexit
import gc
import sys
from collections import Counter
from typing import Any

import click

from blursynth.common.errors import UserError
from blursynth.common.extras import install_extra
from blursynth.common.stop import Terminated
from blursynth.common.text import one_line, printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


EXTRA_OF = {
    "torch": "train",
    "safetensors": "train",
    "albumentations": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "distributed": "cluster",
}
"""Packages that only some commands need -> the extra that brings them."""


class Failure(click.ClickException):
    """One line on stderr, and the exit code of an error."""

    def __init__(self, error: UserError) -> None:
        super().__init__(one_line(str(error)))
        self.code = error.exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click declares a class variable
        return self.code


class Command(click.Command):
    """Refuses an option that takes one value and is given twice: of two, the last would win in silence."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for option, n in Counter(order).items():
                if n > 1 and isinstance(option, click.Option) and _single(option):
                    raise click.UsageError(f"{option.opts[0]} is given {n} times and takes one value", ctx)
        return super().parse_args(ctx, args)


def _single(option: click.Option) -> bool:
    return not (option.multiple or option.count or option.is_flag or option.nargs != 1)


class Commands(click.Group):
    """A command whose subcommands are ``Command``s, and which tells what they raise in one line."""

    command_class = Command
    stopped = "stopped"  # what a person reads after Ctrl-C

    def main(self, *args: Any, **extra: Any) -> Any:
        # When the process ends Python looks through all its objects for cycles, several times, and then drops them anyway.
        atexit.register(gc.freeze)
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as e:
            say(self.stopped, err=True)
            sys.exit(self.stop_code(e))
        except BrokenPipeError:
            sys.exit(1)
        except Exception as e:
            told = self.told(e)
            if told is None:
                raise
            raise Failure(told) from None

    def stop_code(self, e: KeyboardInterrupt) -> int:
        """As shells number signals: 128 and SIGTERM or SIGINT."""
        return 143 if isinstance(e, Terminated) else 130

    def told(self, e: Exception) -> UserError | None:
        """What a person reads of an error; None for a mistake of ours, which keeps its traceback."""
        if isinstance(e, UserError):
            return e
        if isinstance(e, OSError):
            return UserError(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e))
        if isinstance(e, ImportError):
            package = (e.name or "").partition(".")[0]
            if isinstance(e, ModuleNotFoundError) and package in EXTRA_OF:
                return UserError(
                    f"this needs {package}, which is not installed: {install_extra(EXTRA_OF[package])}"
                )
            return UserError(str(e))
        return None


def say(text: object, err: bool = False) -> None:
    """Print what a command found: strings that came with the data can neither command the terminal nor break it."""
    click.echo(printable(str(text)), err=err)
