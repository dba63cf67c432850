"""Files that hold weights: our safetensors, official checkpoints, and the whole state of a run; all written atomically."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from blursynth import __version__
from blursynth.common.atomic import write_atomic
from blursynth.common.errors import UserError
from deblur_train.models.base import Generator
from deblur_train.models.generator import build_generator
from deblur_train.models.nafnet import shape_of
from deblur_train.models.norm import NormStats, set_norm_stats

FORMAT = "deblur-train generator 1"
State = dict[str, Tensor]
ANCHORS = ("fpn.features.0.0.weight", "fpn.inception.conv2d_1a.conv.weight", "intro.weight")
"""A key of every generator, by which it is found inside what wraps it."""


class CheckpointError(UserError):
    """A file of weights that cannot be used; the message names it, what is wrong and what to do."""


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as f:
            head = f.read(16)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from None
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x89HDF"):
        raise CheckpointError(f"{path}: a Keras/HDF5 file; a PyTorch or safetensors checkpoint is needed")
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        return "torch"
    raise CheckpointError(
        f"{path}: neither a safetensors nor a PyTorch file; give a checkpoint, for example runs/NAME/best.safetensors"
    )


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, if it is only tensors, numbers, strings and containers; code in it is refused, not run."""
    _refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if "weights_only" in str(e).lower() or "unsupported" in str(e).lower():
            raise CheckpointError(
                f"{path}: holds objects other than tensors, which could run code; refused. Save a plain state dict instead"
            ) from None
        raise CheckpointError(f"{path}: damaged PyTorch file") from None
    except Exception as e:  # there is no end to what an unpickler raises over damaged bytes
        raise CheckpointError(f"{path}: damaged or truncated PyTorch file ({type(e).__name__})") from None


def _refuse_compressed(path: Path) -> None:
    """torch stores its files uncompressed; a compressed one could unpack to any size."""
    try:
        with zipfile.ZipFile(path) as z:
            packed = any(i.compress_type != zipfile.ZIP_STORED for i in z.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, LookupError, struct.error):
        return  # the older format, or damaged: torch.load tells
    if packed:
        raise CheckpointError(f"{path}: a compressed archive, not what torch.save writes; refused")


def read_state(path: str | Path) -> tuple[State, dict[str, str]]:
    """The tensors of a weights file of any accepted kind, and its metadata. Raises CheckpointError.

    Accepted: safetensors; PyTorch files that hold a state dict, bare or as BasicSR, NAFNet, Lightning, DeblurGAN-v2 and
    ``last.pt`` wrap it (``CONTAINERS``), with the key prefixes of DataParallel, ``torch.compile`` and training wrappers.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; give the file, for example {path / 'best.safetensors'}")
    info: dict[str, str] = {}
    if _kind(path) == "safetensors":
        try:
            with safe_open(path, framework="pt") as f:
                info = dict(f.metadata() or {})
                state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 (not a dict)
        except (
            SafetensorError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RuntimeError,
        ) as e:
            why = "".join(c if c.isprintable() else "?" for c in str(e))  # it quotes the file
            raise CheckpointError(f"{path}: damaged safetensors file: {why}") from None
    else:
        state = _unwrap(read_torch(path), path)
    return _unprefix(state, path), info


# Where programs put the generator's weights inside what they save, an average before what it is the average of: BasicSR
# and NAFNet, ours (``last.pt``), Lightning, official DeblurGAN-v2, GAN repositories.
CONTAINERS = (
    "params_ema",
    "ema",
    "model_ema",
    "params",
    "state_dict",
    "model",
    "generator",
    "netG",
    "net_g",
    "net",
)


def _unwrap(held: Any, path: Path) -> State:
    """The named tensors inside what a PyTorch file holds."""
    for _ in range(4):
        inner = [
            held[n]
            for n in CONTAINERS
            if isinstance(held, dict) and isinstance(held.get(n), dict) and held[n]
        ]
        if not inner:
            break
        held = inner[0]
    if isinstance(held, dict) and held and all(isinstance(v, Tensor) for v in held.values()):
        return {str(k): v for k, v in held.items()}
    found = f"a {type(held).__name__}"
    if isinstance(held, dict):
        found = f"a dict of {_listed([str(k) for k in held])}" if held else "an empty dict"
    raise CheckpointError(f"{path}: holds no state dict (named tensors), but {found}")


def _unprefix(state: State, path: Path) -> State:
    """Key names without what wrappers put before them (``module.``, ``_orig_mod.``, ``model.``, ``netG.``...).

    A file may hold other networks beside the generator (a discriminator, a loss): only the generator's are kept, its
    moving average where there is one.
    """
    state = {k.replace("_orig_mod.", ""): v for k, v in state.items()}
    prefixes = {
        k[: -len(anchor)] for k in state for anchor in ANCHORS if k == anchor or k.endswith("." + anchor)
    }
    chosen = {p for p in prefixes if "ema" in p.lower()} or prefixes
    if len(chosen) > 1:
        raise CheckpointError(
            f"{path}: holds several generators ({_listed(sorted(chosen))}); save the one to use"
        )
    if not chosen:  # another network's (VGG, a backbone), or none
        return {k.removeprefix("module."): v for k, v in state.items()}
    (prefix,) = chosen
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _listed(names: list[str]) -> str:
    text = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return "".join(c if c.isprintable() else "?" for c in text[:200])


def _is_alias(key: str) -> bool:
    return key.startswith("fpn.enc")


def backbone_of(state: State) -> str | None:
    """Which generator a state dict belongs to, told from its keys; None for another model."""
    if shape_of(state) is not None:
        return "nafnet"
    if any(k.startswith("fpn.inception.") for k in state):
        return "inception"
    if "fpn.features.0.0.weight" not in state:
        return None
    return "mobilenet-dsc" if "smooth.0.1.weight" in state else "mobilenet"


def load_weights(model: nn.Module, state: State, path: str | Path) -> None:
    """Load strictly: every tensor present, none left over, all shapes equal. Raises CheckpointError."""
    wanted = {k: v for k, v in model.state_dict().items() if not _is_alias(k)}
    given = {k: v for k, v in state.items() if not _is_alias(k)}
    for what, names in (
        ("lacks", wanted.keys() - given.keys()),
        ("has the unknown", given.keys() - wanted.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(f"{path}: another model: {what} {len(names)} tensors ({shown})")
    for k, v in wanted.items():
        if v.shape != given[k].shape:
            raise CheckpointError(
                f"{path}: another model: {k} has shape {tuple(given[k].shape)}, not {tuple(v.shape)}"
            )
    broken = [k for k in wanted if given[k].is_floating_point() and not bool(torch.isfinite(given[k]).all())]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} tensors hold values that are not finite (NaN or infinite), first {broken[0]}; "
            "training diverged or the file is damaged: give an earlier one"
        )
    with torch.no_grad():
        for k, v in wanted.items():
            v.copy_(given[k])


def load_generator(
    path: str | Path, norm_stats: NormStats = "tracked", window: int | None = None
) -> Generator:
    """A generator in eval mode from a ``path`` of ours (safetensors, ``last.pt``) or an official file; its keys tell the
    backbone. It takes and gives (N, 3, H, W) float32 RGB in [-1, 1], display-encoded, any H and W.

    Official files: DeblurGAN-v2's ``.h5`` and NAFNet's ``.pth`` (their range of [0, 1] stays inside). ``norm_stats``:
    "tracked" running statistics; "image" each image's own, as official inference does; "local" TLC windows of
    ``window`` pixels (default: 1.5 times the training crop). NAFNet tracks none: "tracked" and "image" are the same.
    Raises CheckpointError.
    """
    state, info = read_state(path)
    name = backbone_of(state)
    if name is None:
        raise CheckpointError(
            f"{path}: neither a DeblurGAN-v2 generator (no fpn.features or fpn.inception tensors) nor a NAFNet; "
            f"found {len(state)} tensors: {_listed(list(state))}"
        )
    generator = build_generator(name, shape_of(state))
    load_weights(generator, state, path)
    if window is None:
        crop = info.get("crop", "256")
        window = round(1.5 * int(crop)) if crop.isdecimal() and len(crop) < 6 else 384
    set_norm_stats(generator, norm_stats, window)
    return generator.eval()


def save_generator(path: Path, backbone: str, state: State, extra: dict[str, str] | None = None) -> None:
    """Write a generator as safetensors; its metadata say how to use it without this package."""
    shape = shape_of(state)
    info = {
        "format": FORMAT,
        "backbone": backbone,
        **({"shape": shape.words()} if shape else {}),
        "preprocessing": json.dumps(
            {
                "colour": "RGB",
                "mean": 127.5,
                "std": 127.5,
                "range": [-1, 1],
                "layout": "NCHW",
                "multiple": shape.stride if shape else 32,
                "pad": "black" if shape else "reflect",
            }
        ),
        "version": __version__,
        **(extra or {}),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items() if not _is_alias(k)}
    data = safetensors_bytes(tensors, metadata=info)
    write_atomic(path, data)


def export_official(generator: Generator, path: Path) -> None:
    """Write ``{'model': {'module.' + key: tensor}}`` with both names of every backbone tensor, as official code reads it."""
    state = {f"module.{k}": v.detach().cpu().clone() for k, v in generator.state_dict().items()}
    write_atomic(path, lambda f: torch.save({"model": state}, f))


def save_run(path: Path, state: dict[str, Any]) -> None:
    """Write the whole state of a run (only tensors and plain values, so that it loads with weights_only)."""
    write_atomic(path, lambda f: torch.save(state, f))


def shipped_checkpoint() -> Path:
    """The generator that comes with the package, for those who have not trained one (its card: weights/README.md)."""
    return Path(__file__).parents[1] / "weights" / "nafnet.safetensors"
