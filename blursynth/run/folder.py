"""The folder that shards are made in: who may write there, what is done, what must not be mixed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from blursynth import __version__
from blursynth.card.dataset_card import CARD_MARK
from blursynth.common.atomic import open_own, part_of, write_atomic
from blursynth.common.errors import UsageError
from blursynth.common.lock import flock
from blursynth.recipe import Recipe, dump_recipe
from blursynth.run.plan import Plan
from blursynth.shards.pieces import STATE, pieces_folder, sweep_pieces
from blursynth.shards.schema import KEPT
from blursynth.shards.shard import ShardError, dump_json, read_sidecar, shard_of, tar_matches, without_lists
from blursynth.shards.table import HEADER
from blursynth.shards.table import NAME as TABLE

OWN_FILES = {
    "recipe.toml": b"# resolved recipe",
    "dataset.json": b'"plan_sha256"',
    "_info.json": b'"splits"',
    "croissant.json": b"@context",
    TABLE: HEADER[:20].encode(),
    "run.jsonl": b'"event"',
    "failed.json": b'"failed"',
}
"""Names that a run writes in its folder, and what the beginning of such a file holds when a run wrote it."""
HEAD = 1 << 16  # bytes


class OutputError(UsageError):
    """The output folder cannot be used; ``exit_code`` 2 when the command must change, 1 when the world must."""


class Output:
    """``DATA/`` and the rules of section 3 of the design for what lies in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.label = str(path)  # for messages
        self.state = self.path / STATE

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against a second ``make``; the system lets go even when this process is killed.

        Raises OutputError when another holds it or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise OutputError(f"{self.path}: is a file, not a folder; give another --out") from None
        except OSError as e:
            raise OutputError(
                f"{self.path}: cannot write there ({e.strerror}); give another --out", 1
            ) from None
        self._refuse_links()
        try:
            self.state.mkdir(exist_ok=True)
            file = open_own(self.state / "lock", "a+")
        except FileExistsError as e:
            raise OutputError(f"{e.filename}: {e.strerror}") from None
        except OSError as e:
            raise OutputError(
                f"{self.path}: cannot write there ({e.strerror}); give another --out", 1
            ) from None
        with file:
            if not flock(file, exclusive=True, wait=False):
                file.seek(0)
                raise OutputError(
                    f"{self.path}: another make is at work there ({file.read().strip()}); wait for it or give another --out",
                    1,
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self._wait_for_orphans()
            yield

    @contextlib.contextmanager
    def glance(self) -> Iterator[None]:
        """The folder as it is now, for a dry run: nothing is held or written. Raises OutputError."""
        if any(os.path.lexists(p) and not p.is_dir() for p in (self.path, *self.path.parents)):
            raise OutputError(f"{self.path}: is a file, not a folder; give another --out")
        self._refuse_links()
        yield

    def _refuse_links(self) -> None:
        for own in (self.state, pieces_folder(self.path)):
            if own.is_symlink():
                raise OutputError(f"{own}: is a link, which is not followed; remove it")

    def _wait_for_orphans(self) -> None:
        """A killed run's workers may live a moment longer and finish their shard: not under a new run's hands."""
        with self._own(self.state / "workers") as f:
            if not flock(f, exclusive=True, wait=False):
                print(f"{self.path}: waiting for tasks of an earlier run to end", file=sys.stderr)
                flock(f, exclusive=True, wait=True)

    def _own(self, path: Path) -> IO[Any]:
        """A file that is written in place. Raises OutputError for a link, or whatever is no plain file."""
        try:
            return open_own(path)
        except FileExistsError as e:
            raise OutputError(f"{e.filename}: {e.strerror}") from None

    def foreign_file(self) -> str | None:
        """Name of a file that a run would write over though no run wrote it."""
        for name, mark in OWN_FILES.items():
            path = self.path / name
            if path.is_symlink() or (path.exists() and not path.is_file()):
                return name
            if path.exists():
                with path.open("rb") as f:
                    head = f.read(HEAD)
                if head and mark not in head:
                    return name
        names = [p.name for p in self.path.iterdir() if KEPT.fullmatch(p.name)] if self.path.exists() else []
        return next((name for name in sorted(names) if not self._keeps(name)), None)

    def _keeps(self, name: str) -> bool:
        """Whether this is a copy of a recipe's file: its content is what its name says."""
        named, path = KEPT.fullmatch(name), self.path / name
        if named is None or path.is_symlink() or not path.is_file():
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest().startswith(named["sha12"])

    def refuse_mix(self, recipe: Recipe, plan: Plan | None = None) -> None:
        """Raises OutputError when shards of another recipe, version or source lie here, naming what differs; sources are
        not compared without a plan, as in a dry run, which hashes none."""
        if name := self.foreign_file():
            raise OutputError(
                f"{self.label}: holds a {name} that blursynth did not write; give another --out, or move it away"
            )
        go_on = f"give another --out, or --overwrite to remove the shards in {self.label}"
        sides = self._sidecars()
        strangers = sorted(n for n in self._tars() if n[:-4] not in sides)
        if strangers and not (self.path / "recipe.toml").exists():
            raise OutputError(
                f"{self.label}: holds {strangers[0]}, which blursynth did not make; give another --out"
            )
        for name, side in sides.items():
            if side["recipe_sha256"] != recipe.sha256:
                raise OutputError(
                    f"{self.label}: holds shards of another recipe ({self._recipe_diff(recipe)}); {go_on}"
                )
            if side.get("version") != __version__:
                raise OutputError(
                    f"{self.label}: {name} was made by blursynth {side.get('version')}, this is {__version__}, whose samples may differ; {go_on}"
                )
            if plan and side["plan_sha256"] != plan.sha256:
                raise OutputError(
                    f"{self.label}: holds shards of other sources ({self._source_diff(plan)}); {go_on}"
                )

    def _recipe_diff(self, recipe: Recipe) -> str:
        try:
            old = tomllib.loads((self.path / "recipe.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return "its recipe.toml is gone or torn"
        new = {k: v for k, v in recipe.named().model_dump().items() if v is not None}
        keys = sorted(k for k in (old.keys() | new.keys()) - {"name", "cite"} if old.get(k) != new.get(k))
        return (
            ", ".join(f"{k}: {old.get(k, 'unset')} there, {new.get(k, 'unset')} now" for k in keys)
            or "recipe.toml was edited"
        )

    def _source_diff(self, plan: Plan) -> str:
        try:
            old = {c["rel"]: c for c in json.loads((self.state / "plan.json").read_bytes())["clips"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "the plan differs"
        new = {p.clip.rel: p.identity() for p in plan.clips}
        told = [f"{rel} is new" for rel in sorted(new.keys() - old.keys())]
        told += [f"{rel} is gone" for rel in sorted(old.keys() - new.keys())]
        told += [f"{rel} changed" for rel in sorted(new.keys() & old.keys()) if new[rel] != old[rel]]
        return (
            ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
            or "a file the recipe names changed, or an older blursynth laid them out"
        )

    def begin(self, recipe: Recipe, plan: Plan, kept: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Sweep what a killed run left half-written; lay down the recipe, and the files it names, before the first shard.

        kept: name -> content of those files.
        """
        self.sweep()
        sweep_pieces(self.path, plan.sha256, set(plan.shards) - self.finished(plan).keys())
        for name, data in kept.items():
            write_atomic(self.path / name, data)
        write_atomic(self.path / "recipe.toml", dump_recipe(recipe).encode())
        write_atomic(
            self.state / "plan.json",
            dump_json({"plan_sha256": plan.sha256, "clips": [p.identity() for p in plan.clips]}),
        )

    def sweep(self) -> None:
        """Remove what writers of this folder's own files left half-written when they were killed."""
        for name in self._names():
            if is_own_part(name):
                (self.path / name).unlink(missing_ok=True)
        sweep_pieces(self.path)

    def refuse_clear(self) -> None:
        """Raises OutputError where `clear` would remove what blursynth did not make."""
        if self._tars() and "recipe.toml" not in self._names() and not self._sidecars():
            raise OutputError(
                f"{self.label}: holds shards that blursynth did not make; --overwrite removes only its own; give another --out"
            )
        if name := self.foreign_file():
            raise OutputError(
                f"{self.label}: holds a {name} that blursynth did not write; --overwrite removes only its own; give another --out"
            )

    def clear(self) -> None:
        """Remove what blursynth made here, and nothing else. Raises OutputError as `refuse_clear` does."""
        self.refuse_clear()
        names = self._names()
        # Sidecars first: without one a tar is not taken for finished, should this be interrupted.
        for ext in (".json", ".tar"):
            for name in names:
                if name.endswith(ext) and shard_of(name):
                    self._remove(name)
        owned = {*OWN_FILES, "README.md"} if self.owns_card() else set(OWN_FILES)
        for name in names:
            if name in owned or is_own_part(name) or KEPT.fullmatch(name):
                self._remove(name)
        sweep_pieces(self.path, wanted=set())
        for name in ("plan.json", "sources.json"):
            (self.state / name).unlink(missing_ok=True)

    def forget(self, shard: str) -> None:
        """A finished shard is finished no longer: it will be made again."""
        (self.path / f"{shard}.json").unlink(missing_ok=True)

    def deliver(self, shard: str) -> None:
        """A shard has been made; here it lies where it belongs."""

    def finish(self) -> None:
        """The index is written; here it lies where it belongs."""

    def owns_card(self) -> bool:
        """Whether README.md is absent or our dataset card, so that it may be written."""
        try:
            return CARD_MARK in (self.path / "README.md").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return True

    def finished(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """Sidecars of the plan's shards whose tar is there and has its size."""
        found = {}
        for name in plan.shards:
            try:
                side = read_sidecar(self.path / f"{name}.json")
            except ShardError:
                continue  # made again
            if (
                side is not None
                and side["plan_sha256"] == plan.sha256
                and tar_matches(self.path / f"{name}.tar", side)
            ):
                found[name] = without_lists(side)
        return found

    def rows(self, shards: Iterable[str]) -> Iterator[str]:
        """The rows of samples.csv, a finished shard's at a time."""
        for name in shards:
            yield (read_sidecar(self.path / f"{name}.json") or {}).get("csv", "")

    def failures(self) -> dict[str, dict[str, Any]]:
        """Shard -> why it could not be made, as earlier runs left it."""
        try:
            return dict(json.loads((self.path / "failed.json").read_bytes())["failed"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def save_failures(self, failed: dict[str, dict[str, Any]]) -> None:
        if failed:
            write_atomic(
                self.path / "failed.json", dump_json({"schema": 1, "failed": dict(sorted(failed.items()))})
            )
        else:
            (self.path / "failed.json").unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Free space of the disk the folder is, or will be, on."""
        at = self.path.absolute()
        while not at.exists():
            at = at.parent
        return shutil.disk_usage(at).free

    def _names(self) -> list[str]:
        """Of the files directly in the folder."""
        return sorted(p.name for p in self.path.iterdir() if not p.is_dir()) if self.path.exists() else []

    def _remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _tars(self) -> list[str]:
        return [n for n in self._names() if n.endswith(".tar") and shard_of(n)]

    def _sidecars(self) -> dict[str, dict[str, Any]]:
        found = {}
        for p in sorted(self.path.glob("*.json")):
            if shard_of(p.name):
                try:
                    side = read_sidecar(p)
                except ShardError:
                    continue  # not ours, or torn by hand; its shard is made again
                if side is not None:
                    found[p.stem] = without_lists(side)
        return found


def is_own_part(name: str) -> bool:
    """Whether this is the half-written form of a file that a run writes; other programs have .part files too."""
    whole = part_of(name)
    if whole is None:
        return False
    return (
        whole in OWN_FILES
        or whole == "README.md"
        or bool(KEPT.fullmatch(whole))
        or shard_of(whole) is not None
    )


@contextlib.contextmanager
def at_work(out: str) -> Iterator[None]:
    """Held by a worker while it makes a shard, so that the next run waits for it (see ``Output.lock``)."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no such folder: a task outside a run
            flock(stack.enter_context(open_own(Path(out) / STATE / "workers")), exclusive=False, wait=True)
        yield
