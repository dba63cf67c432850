"""``blursynth inspect``, ``audit``, ``verify``, ``explain``: what is in a source or in shards, and is it right?"""

from __future__ import annotations

import sys

import click

from blursynth.common.command import Command, say


@click.command("inspect", cls=Command)
@click.argument("target", metavar="DATA_OR_VIDEO")
@click.option("--out", default="preview.html", show_default=True, metavar="FILE.html")
@click.option("--samples", default=16, show_default=True, type=click.IntRange(1))
def inspect_command(target: str, out: str, samples: int) -> None:
    """Table and pictures of a data set, or of a video before synthesis."""
    from blursynth.preview.inspect import inspect, print_report
    from blursynth.shards.store import require_local

    report = inspect(require_local(target, "inspect"), out, samples)
    print_report(report)
    sys.exit(getattr(report, "exit_code", 0))


@click.command("audit", cls=Command)
@click.argument("src", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def audit_command(src: tuple[str, ...], as_json: bool) -> None:
    """What is wrong with a source, before hours are spent on it."""
    from blursynth.checks.audit import audit_source

    report = audit_source(list(src))
    say(report.to_json() if as_json else str(report))
    sys.exit(getattr(report, "exit_code", 0))


@click.command("verify", cls=Command)
@click.argument("data", metavar="DATA|URL")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quick", is_flag=True, help="Checksums, counts and splits only; images are not decoded.")
def verify_command(data: str, as_json: bool, quick: bool) -> None:
    """Checksums, counts, split leaks, decodability of a data set."""
    from blursynth.checks.verify import verify

    report = verify(data, decode=not quick)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)


@click.command("explain", cls=Command)
@click.argument("data", metavar="DATA|URL")
@click.argument("key")
@click.option(
    "--src",
    multiple=True,
    metavar="PATH",
    help="Where the sources lie now.  [default: where make found them]",
)
@click.option("--picture", metavar="FILE.png", help="Contact sheet: the window's frames, blurred, sharp.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain_command(data: str, key: str, src: tuple[str, ...], picture: str | None, as_json: bool) -> None:
    """Which frames, weights and settings made this sample; rebuilds it and compares bytes."""
    from blursynth.checks.explain import explain

    report = explain(data, key, list(src) or None, picture)
    say(report.to_json() if as_json else str(report))
    sys.exit(report.exit_code)
