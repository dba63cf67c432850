"""Training configs as files: the built-in ones, the user's TOML, and the resolved config in the run folder."""

from __future__ import annotations

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from deblur_train.config import ConfigError, TrainConfig


def builtin_configs() -> dict[str, Path]:
    """Name (without ``train-``) -> path of the configs shipped in the ``pipelines`` package."""
    folder = Path(str(resources.files("blursynth.pipelines")))
    return {p.stem.removeprefix("train-"): p for p in sorted(folder.glob("train-*.toml"))}


def find_config(name: str) -> Path:
    """Path of a config given by built-in name (with or without ``train-``) or by file. Raises ConfigError."""
    known = builtin_configs()
    if name.removeprefix("train-") in known:
        return known[name.removeprefix("train-")]
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        raise ConfigError(f"no config named {name!r}; built in: {', '.join(known)}; or give a FILE.toml")
    if not path.is_file():
        raise ConfigError(f"{name}: no such config file")
    return path


def load_config(name: str | None = None, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Merge the defaults, a config (name or file) and overrides (the command line). Raises ConfigError."""
    merged: dict[str, Any] = {}
    where = "command line"
    if name is not None:
        path = find_config(name)
        where = str(path)
        try:
            merged = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise ConfigError(f"{path}: not a readable TOML config: {e}") from None
        merged.setdefault("name", path.stem.removeprefix("train-"))
    merged.update({k: v for k, v in (overrides or {}).items() if v is not None})
    _refuse_unknown(TrainConfig, merged, where, "")
    try:
        return TrainConfig(**merged)
    except ValidationError as e:
        raise ConfigError(f"{where}: {explain_validation(e)}") from None


def _refuse_unknown(model: type[BaseModel], given: dict[str, Any], where: str, prefix: str) -> None:
    for key, value in given.items():
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, sorted(model.model_fields), n=1)
            hint = (
                f" (did you mean {near[0]!r}?)"
                if near
                else f"; known: {', '.join(sorted(model.model_fields))}"
            )
            raise ConfigError(f"{where}: unknown key {prefix + key!r}{hint}")
        part = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(part, type) and issubclass(part, BaseModel):
            _refuse_unknown(part, value, where, f"{prefix}{key}.")


def explain_validation(e: ValidationError) -> str:
    """One line for a person out of pydantic's report."""
    parts = []
    for err in e.errors():
        key = ".".join(str(p) for p in err["loc"])
        key = key if key.isprintable() else ascii(key)
        message = err["msg"].removeprefix("Value error, ")
        parts.append(f"{key}: {message}, got {err['input']!r}" if key else message)
    return "; ".join(parts)


def dump_config(config: TrainConfig) -> str:
    """The resolved config as TOML; unset keys are left out."""
    return "# resolved config\n" + tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _without_none(d: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in d.items() if v is not None}
