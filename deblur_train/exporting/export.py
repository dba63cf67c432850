"""From a checkpoint to a file that other runtimes load: written only when it gives what the checkpoint gives.

The file is made and checked in memory; its final name appears, whole, after the check has passed.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from blursynth.common.atomic import write_atomic
from blursynth.common.errors import did_you_mean
from deblur_train.evaluation.bench import count, model_of, time_in_turn
from deblur_train.exporting.check import RealFrames, parity, psnr_change, read_frames, synthetic, to_input
from deblur_train.exporting.graph import Portable, describe
from deblur_train.exporting.to_onnx import OPSET, Int8For, onnx_model, quantise, require_onnx
from deblur_train.exporting.to_pt2 import pt2_model, pt2_runner
from deblur_train.exporting.to_tflite import require_tflite, tflite_model
from deblur_train.inference.runtimes import (
    Runner,
    litert_runner,
    missing_extra,
    onnx_runner,
    torch_runner,
)
from deblur_train.inference.signature import Dtype, ExportError, Signature, Size, UnsupportedExport
from deblur_train.models.checkpoint import load_generator, shipped_checkpoint

Format = Literal["onnx", "tflite", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]

# fp32 and fp16: largest difference in the range of [-1, 1]; fp16 keeps about 3 decimal digits. int8: PSNR lost in dB.
TOLERANCE: dict[str, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.3}
HALF_CODE = 1 / 255  # in [-1, 1]: what rounding to bytes may add
LATENCY_SIZE: Size = (256, 256)
PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "tflite": ("torch", "litert-torch", "ai-edge-litert"),
    "pt2": ("torch",),
}


@dataclass(frozen=True)
class ExportOptions:
    format: Format
    precision: Precision = "fp32"
    io: Dtype = "float32"
    size: Size | None = None  # None: any size (tflite: 256 x 256)
    norm_stats: Literal["tracked", "image"] = "tracked"
    calib: str | None = None
    calib_frames: int = 24
    int8_for: Int8For = "cpu"
    tolerance: float | None = None
    opset: int = OPSET

    @property
    def limit(self) -> float:
        if self.tolerance is not None:
            return self.tolerance
        rounding = HALF_CODE if self.io == "uint8" and self.precision != "int8" else 0.0
        return TOLERANCE[self.precision] + rounding


def options_from(options: ExportOptions | None, settings: dict[str, Any], out: Path) -> ExportOptions:
    """The options that a call names, checked by name and value. Raises UnsupportedExport."""
    if options is not None:
        if settings:
            raise UnsupportedExport(f"{', '.join(settings)}: given beside options; put it into them")
        return options
    kinds = get_type_hints(ExportOptions)
    for key, value in settings.items():
        if key not in kinds:
            raise UnsupportedExport(f"{key}: no option of export{did_you_mean(key, kinds)}")
        choices = get_args(kinds[key]) if get_origin(kinds[key]) is Literal else ()
        if choices and value not in choices:
            raise UnsupportedExport(f"{key}: must be one of {', '.join(choices)}, not {value!r}")
    told = out.suffix.lower().removeprefix(".")
    if "format" not in settings and told not in get_args(Format):
        raise UnsupportedExport(
            f"{out}: must end in {', '.join('.' + f for f in get_args(Format))}, or give format="
        )
    return ExportOptions(**{"format": told, **settings})


def check_options(options: ExportOptions, out: Path) -> None:
    """Raise UnsupportedExport, saying what to do instead, for what no exporter here can do."""
    if options.precision == "int8" and options.format != "onnx":
        raise UnsupportedExport(
            f"--precision int8 is written as --format onnx only; {options.format} can be fp32"
            + (" or fp16" if options.format == "pt2" else "")
        )
    if options.precision == "fp16" and options.format == "tflite":
        raise UnsupportedExport(
            "--precision fp16 is not written as tflite: LiteRT's GPU delegate runs an fp32 file in fp16 by itself"
        )
    if options.precision == "int8" and options.calib is None:
        raise UnsupportedExport("--precision int8 needs --calib DATA: shards with frames to calibrate on")
    if options.io == "float16" and options.precision != "fp16":
        raise UnsupportedExport("--io float16 goes with --precision fp16 only")
    if options.int8_for != "cpu" and options.precision != "int8":
        raise UnsupportedExport("--int8-for goes with --precision int8 only")
    if out.suffix.lower() != f".{options.format}":
        raise UnsupportedExport(f"--out {out}: must end in .{options.format}")


def signature_of(options: ExportOptions) -> Signature:
    """NCHW as everything that comes from torch, but NHWC for LiteRT and for bytes, as images lie in memory."""
    size = options.size or (LATENCY_SIZE if options.format == "tflite" else None)
    layout: Literal["NCHW", "NHWC"] = (
        "NHWC" if options.format == "tflite" or options.io == "uint8" else "NCHW"
    )
    return Signature(layout, options.io, size)


def make_model(
    module: Portable, options: ExportOptions, info: dict[str, str], frames: RealFrames | None
) -> bytes:
    """The bytes of the exported file."""
    if options.format == "tflite":
        return tflite_model(module)
    if options.format == "pt2":
        return pt2_model(module, info)
    model = onnx_model(module, info, options.opset)
    if options.precision == "int8":
        assert frames is not None
        model = quantise(
            model, [module.signature.native(to_input(rgb)) for rgb in frames.calibration], options.int8_for
        )
    return model


def open_made(model: bytes, options: ExportOptions, info: dict[str, str], name: str) -> Runner:
    """The file that would be written, running."""
    if options.format == "onnx":
        return onnx_runner(model, name, torch.get_num_threads())
    if options.format == "tflite":
        return litert_runner(model, name, torch.get_num_threads(), json.dumps(info))
    return pt2_runner(model, name)


def latency(reference: Runner, exported: Runner) -> dict[str, Any]:
    """Milliseconds at 256 x 256 (or the file's own size), in turn with eager torch."""
    size = exported.signature.size or LATENCY_SIZE
    x = synthetic(size)
    native = exported.signature.native(x)
    eager, own = time_in_turn([lambda: reference.run(x), lambda: exported.run(native)], rounds=7)
    return {
        "height": size[0],
        "width": size[1],
        "threads": torch.get_num_threads(),
        "median_ms": statistics.median(own) * 1e3,
        "eager_fp32_ms": statistics.median(eager) * 1e3,
        "speedup": statistics.median(a / b for a, b in zip(eager, own, strict=True)),
    }


def verdict(report: dict[str, Any], options: ExportOptions) -> str | None:
    """Why the file must not be used, or None."""
    largest = max(row["max_abs"] for row in report["parity"])
    if options.precision == "int8":
        loss = report["psnr_change"]["loss_db"]
        # Written so that NaN fails too.
        return None if loss <= options.limit else f"loses {loss:.3f} dB PSNR, more than {options.limit:g}"
    if largest <= options.limit:
        return None
    return f"differs from the checkpoint by {largest:.2e}, more than {options.limit:g}"


def export(
    checkpoint: str | Path | None,
    out: str | Path,
    options: ExportOptions | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write ``out`` and ``out.json`` and return what the JSON holds.

    ``export("best.safetensors", "model.onnx", precision="int8", calib="data")`` is the command's call from Python: the
    keys of ExportOptions, the format by the name of ``out`` where it is not given. ``checkpoint`` None is the model that
    comes with the package.

    Raises UnsupportedExport for impossible options, ImportError (naming the extra), CheckpointError, DataError, and
    ExportError when the result differs from the checkpoint by more than the tolerance: then nothing is written.
    """
    out, checkpoint = Path(out), str(checkpoint or shipped_checkpoint())
    options = options_from(options, settings, out)
    check_options(options, out)
    if options.format == "onnx":
        require_onnx()
        _require_onnxruntime()
    elif options.format == "tflite":
        require_tflite()
    generator = load_generator(checkpoint, options.norm_stats)
    signature = signature_of(options)
    frames = read_frames(options.calib, options.calib_frames, signature.size) if options.calib else None
    info = describe(generator, signature, options.precision, options.norm_stats)
    module = Portable(generator, signature, torch.float16 if options.precision == "fp16" else torch.float32)
    model = make_model(module, options, info, frames)
    reference, exported = torch_runner(generator), open_made(model, options, info, str(out))
    macs, parameters = count(*model_of(reference))
    report: dict[str, Any] = {
        "file": out.name,
        "bytes": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        "checkpoint": checkpoint,
        "format": options.format,
        "precision": options.precision,
        "backbone": generator.backbone_name,
        "norm_stats": options.norm_stats,
        "opset": options.opset if options.format == "onnx" else None,
        "int8_for": options.int8_for if options.precision == "int8" else None,
        "io": signature.words(),
        "parameters": parameters,
        "kmacs_per_pixel": macs / 1e3,
        "tolerance": {
            "value": options.limit,
            "of": "loss_db" if options.precision == "int8" else "max_abs",
        },
        "parity": parity(reference, exported),
        "psnr_change": psnr_change(reference, exported, frames) if frames else None,
        "latency": latency(reference, exported),
        "versions": {p: metadata.version(p) for p in PACKAGES[options.format]},
    }
    wrong = verdict(report, options)
    if wrong:
        raise ExportError(f"{out}: not written: {wrong} (--tolerance)")
    write_atomic(out, model)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_atomic(out.with_name(out.name + ".json"), text.encode())
    return report


def _require_onnxruntime() -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise missing_extra("the check after an ONNX export", "export") from None
