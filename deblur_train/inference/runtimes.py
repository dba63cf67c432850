"""One way to run a generator whatever holds it: a checkpoint (torch), ONNX or LiteRT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from blursynth.common.extras import install_extra
from deblur_train.inference.signature import ExportError, Signature, signature_from_words
from deblur_train.models.base import Generator
from deblur_train.models.checkpoint import load_generator
from deblur_train.models.norm import NormStats

Runtime = Literal["eager", "compile", "onnxruntime", "litert", "pt2"]
EXPORTED: dict[str, Runtime] = {".onnx": "onnxruntime", ".tflite": "litert", ".pt2": "pt2"}


@dataclass(frozen=True)
class Runner:
    """``run`` takes and gives arrays as ``signature`` says; calling the runner takes and gives the Python contract's."""

    runtime: Runtime
    signature: Signature
    run: Callable[[np.ndarray], np.ndarray]
    info: dict[str, str] = field(default_factory=dict)  # the file's metadata

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """``(N, 3, H, W)`` float32 RGB in [-1, 1] to the same. Raises ExportError where the file's size is another."""
        size = self.signature.size
        if size is not None and x.shape[2:] != size:
            raise ExportError(
                f"the exported file takes {size[0]} x {size[1]} pixels only, not {x.shape[2]} x {x.shape[3]}"
            )
        return self.signature.signed(self.run(self.signature.native(x)))


def missing_extra(what: str, extra: str) -> ImportError:
    return ImportError(f"{what} needs packages that are not installed: {install_extra(extra)}")


def torch_runner(generator: Generator, compiled: bool = False) -> Runner:
    """Eager torch in channels_last, the faster of its layouts on every CPU measured; or through ``torch.compile``."""
    device = next(generator.parameters()).device
    net: Any = generator.eval()
    net = net.to(memory_format=torch.channels_last)
    if compiled:
        net = torch.compile(net, dynamic=False)

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            image = torch.from_numpy(x).to(device).contiguous(memory_format=torch.channels_last)
            return net(image).float().cpu().numpy()

    info = {**generator.facts(), "precision": "fp32"}
    return Runner("compile" if compiled else "eager", Signature(), run, info)


def onnx_runner(model: bytes, name: str, threads: int | None = None) -> Runner:
    """Through onnxruntime's CPU provider. Raises ImportError without the extra, ExportError for a bad file."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise missing_extra("onnxruntime", "export") from None
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime has a class of its own for every kind of damage
        raise ExportError(f"{name}: onnxruntime cannot load it: {_first_line(e)}") from None
    info = dict(session.get_modelmeta().custom_metadata_map)
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    signature = signature_of_file(info, name)
    return Runner("onnxruntime", signature, lambda x: session.run([taken.name], {given.name: x})[0], info)


def litert_runner(model: bytes, name: str, threads: int | None = None, words: str | None = None) -> Runner:
    """Through LiteRT (TensorFlow Lite) with XNNPACK. ``words``: the file's JSON, where there is one.

    Without it layout and type are told from the input tensor. Raises ImportError, ExportError.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise missing_extra("LiteRT", "tflite") from None
    try:
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        raise ExportError(f"{name}: LiteRT cannot load it: {_first_line(e)}") from None
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    shape = [int(n) for n in given["shape"]]
    layout: Literal["NCHW", "NHWC"] = "NHWC" if shape[3] == 3 else "NCHW"
    h, w = (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
    dtype = np.dtype(given["dtype"]).name
    if dtype not in ("float32", "uint8"):
        raise ExportError(f"{name}: takes {dtype}; float32 and uint8 are known")

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(taken["index"])

    info = json.loads(words) if words else {}
    return Runner("litert", Signature(layout, "uint8" if dtype == "uint8" else "float32", (h, w)), run, info)


def signature_of_file(info: dict[str, str], name: str) -> Signature:
    try:
        return signature_from_words(json.loads(info["io"]))
    except (KeyError, ValueError, TypeError):
        raise ExportError(
            f"{name}: says nothing of its input (metadata 'io'); not written by 'deblur-train export'"
        ) from None


def _first_line(e: BaseException) -> str:
    return str(e).strip().split("\n")[0][:200] or type(e).__name__


def open_exported(path: Path, threads: int | None = None) -> Runner:
    """A runner for an exported file, by its extension (``.onnx``, ``.tflite``). Raises ExportError, ImportError."""
    runtime = EXPORTED.get(path.suffix.lower())
    if runtime == "pt2":
        raise ExportError(
            f"{path}: torch.export files are written here and not read: loading one runs what it holds (pickles, and "
            "expressions in its JSON). Give the checkpoint or an .onnx; torch.export.load is for files that you made"
        )
    try:
        model = path.read_bytes()
    except OSError as e:
        raise ExportError(f"{path}: cannot be read: {e.strerror}") from None
    if runtime == "onnxruntime":
        return onnx_runner(model, str(path), threads)
    if runtime == "litert":
        return litert_runner(model, str(path), threads)
    raise ExportError(f"{path}: not an exported file ({', '.join(EXPORTED)})")


def open_any(
    path: Path, threads: int | None = None, norm_stats: NormStats = "tracked", compiled: bool = False
) -> Runner:
    """A runner for an exported file or a checkpoint. Raises ExportError, CheckpointError, ImportError."""
    if path.suffix.lower() in EXPORTED:
        return open_exported(path, threads)
    return torch_runner(load_generator(path, norm_stats), compiled)
