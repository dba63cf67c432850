"""A generator as ONNX, through torch's dynamo exporter; and that ONNX in static INT8."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deblur_train.exporting.graph import Portable, trace
from deblur_train.inference.runtimes import missing_extra

OPSET = 20
Int8For = Literal["cpu", "tensorrt"]

# What onnxruntime has 8-bit kernels for and this network is made of. Not Gather and Pad: they carry the image itself
# to the residual sum, which must not be rounded on the way.
QUANTISED = ["Conv", "Relu", "Clip", "Add", "Concat", "Resize", "MaxPool", "AveragePool"]


def require_onnx() -> None:
    """Raise ImportError, naming the extra, unless ONNX can be written."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_extra("ONNX export", "export") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporters' own chatter is for their developers; what matters is measured afterwards."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "root")
    loggers = [logging.getLogger(None if n == "root" else n) for n in names]
    before = [x.level for x in loggers]
    try:
        for x in loggers:
            x.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for x, level in zip(loggers, before, strict=True):
            x.setLevel(level)


def onnx_model(module: Portable, metadata: dict[str, str], opset: int = OPSET) -> bytes:
    """The module as one ONNX file, weights inside; input ``image``, output ``restored``, metadata in ``metadata_props``."""
    require_onnx()
    with _quietly():
        program = torch.onnx.export(
            trace(module),
            input_names=["image"],
            output_names=["restored"],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_sizes(model.graph)
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]  # stack traces with this machine's paths, and a fifth of the file
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def _name_sizes(graph: Any) -> None:
    """Give the symbolic sizes of input and output names that a person understands."""
    if not graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        return
    channels = next(i for i, d in enumerate(graph.input[0].type.tensor_type.shape.dim) if d.dim_value == 3)
    names = ["batch", "height", "width"]
    names.insert(channels, "")
    for value in (graph.input[0], graph.output[0]):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                dim.dim_param = name
    del graph.value_info[:]  # speaks of the tracer's symbols; every runtime infers its own


def quantise(model: bytes, images: list[np.ndarray], target: Int8For = "cpu") -> bytes:
    """FP32 ONNX to static INT8 in QDQ form, calibrated on ``images`` (what the file takes, one batch each).

    ``cpu``: unsigned activations, signed weights a channel in 7 bits, because the x86 instruction before VNNI adds two
    products in 16 bits and saturates with 8. ``tensorrt``: all signed and symmetric with zero point 0, biases in
    float, as TensorRT's explicit quantisation wants. The last convolution and the residual sum stay in float for both.
    """
    require_onnx()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    tensorrt = target == "tensorrt"
    with tempfile.TemporaryDirectory() as folder, _quietly():
        given, prepared, result = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "int8"))
        given.write_bytes(model)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared)
        quantize_static(
            prepared,
            result,
            _Images(graph.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            reduce_range=not tensorrt,
            activation_type=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept_in_float(graph),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": tensorrt,
                "QuantizeBias": not tensorrt,
                "WeightSymmetric": True,
            },
        )
        quantised = onnx.load(result)
    own = {entry.key for entry in quantised.metadata_props}
    for entry in onnx.load_from_string(model).metadata_props:
        if entry.key not in own:
            quantised.metadata_props.add(key=entry.key, value=entry.value)
    return quantised.SerializeToString()


class _Images:
    """What onnxruntime's calibration reads from."""

    def __init__(self, name: str, images: list[np.ndarray]) -> None:
        self.name, self.left = name, list(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {self.name: self.left.pop(0)} if self.left else None


def kept_in_float(model: Any) -> list[str]:
    """Names of the nodes that 8 bits would spoil: the last convolution (depthwise pair included) and all after it, and
    what comes before the first convolution."""
    nodes = list(model.graph.node)
    maker = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    weights = {t.name for t in model.graph.initializer}
    last = convolutions[-1]
    tail = [last]
    before = maker.get(last.input[0])
    if (
        before is not None and before.op_type == "Conv"
    ):  # pointwise after depthwise: one separable convolution
        tail.append(before)
    reached = set(last.output)
    for node in nodes:  # in topological order, as ONNX demands
        if any(name in reached for name in node.input):
            reached.update(node.output)
            tail.append(node)
    first, head = convolutions[0], []
    wanted = [n for n in first.input if n not in weights]
    while wanted:
        node = maker.get(wanted.pop())
        if node is not None:
            head.append(node)
            wanted += node.input
    return [node.name for node in tail + head]
