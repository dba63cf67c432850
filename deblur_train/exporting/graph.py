"""A generator as other runtimes take it: one graph from pixels to pixels, with padding and cropping inside."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from blursynth import __version__
from deblur_train.inference.signature import Signature
from deblur_train.models.base import Generator
from deblur_train.models.checkpoint import FORMAT

MOST_BLOCKS = 1 << 12  # a side; a bound the tracer needs, far beyond any image


def describe(generator: Generator, signature: Signature, precision: str, norm_stats: str) -> dict[str, str]:
    """Metadata of an exported file: string keys to strings, the nested ones as JSON."""
    return {
        "format": FORMAT,
        **generator.facts(),
        "precision": precision,
        "norm_stats": norm_stats,
        "io": json.dumps(signature.words()),
        "version": __version__,
    }


def _extend(x: Tensor, dim: int, size: Any, black: bool) -> Tensor:
    """Extend ``x`` along ``dim`` up to ``size``: black, or reflected as ``reflect_to`` does, for any size of at least 1.

    No branch depends on a size, so that one traced graph serves all; the modulus is a tensor so that no exporter
    reasons it away for sizes it has not seen (a side of 1 pixel has period 1, not 0).
    """
    n = x.shape[dim]
    if black:
        return pad(x, [0, 0] * (x.dim() - 1 - dim) + [0, size - n], value=-1.0)
    period = torch.scalar_tensor(2 * n - 2, dtype=torch.int64).clamp_min(1)
    i = torch.arange(size, dtype=torch.int64) % period
    return x.index_select(dim, torch.minimum(i, period - i))


class Portable(nn.Module):
    """``image`` to ``restored``, both as ``signature`` says; the network in between runs in ``compute`` type."""

    def __init__(
        self, generator: Generator, signature: Signature, compute: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).eval().to(compute)
        self.signature, self.compute = signature, compute

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2) if self.signature.layout == "NHWC" else image
        x = x.to(torch.float32) / 127.5 - 1 if self.signature.dtype == "uint8" else x
        x = x.to(self.compute)
        h, w = x.shape[-2], x.shape[-1]
        if self.signature.size is None:
            stride, black = self.generator.stride, self.generator.zero_padded
            smallest = self.generator.smallest // stride
            height, width = (_blocks(n, stride, smallest) for n in (h, w))
            y = self.generator.restore(_extend(_extend(x, 2, height, black), 3, width, black))
            y = y.index_select(2, torch.arange(h)).index_select(3, torch.arange(w))
        else:
            y = self.generator(x)  # the padding is plain where the size is known
        if self.signature.dtype == "uint8":
            y = ((y.to(torch.float32) + 1) * 127.5).round().to(torch.uint8)
        elif y.dtype != image.dtype:
            y = y.to(image.dtype)
        return y.permute(0, 2, 3, 1) if self.signature.layout == "NHWC" else y


def _blocks(n: Any, stride: int, smallest: int) -> Any:
    """``n`` pixels rounded up to whole blocks of ``stride``, at least ``smallest`` of them.

    The number of blocks leaves the sizes' algebra as a value of its own: every size in the network is then a multiple of
    one plain symbol, which halves the time an exporter takes to reason about them.
    """
    blocks = torch.scalar_tensor((n + stride - 1) // stride, dtype=torch.int64).clamp_min(smallest).item()
    torch._check(blocks >= smallest)
    torch._check(blocks <= MOST_BLOCKS)
    return blocks * stride


def trace(module: Portable) -> torch.export.ExportedProgram:
    """The module as a ``torch.export`` graph with named dynamic sizes (batch, height, width) unless its size is fixed."""
    from torch.export import Dim, export

    signature = module.signature
    h, w = signature.size or (160, 224)
    batch = 1 if signature.size else 2
    example = torch.zeros(batch, 3, h, w) if signature.layout == "NCHW" else torch.zeros(batch, h, w, 3)
    example = example.to(getattr(torch, signature.dtype))
    spatial = (
        {2: Dim("height"), 3: Dim("width")}
        if signature.layout == "NCHW"
        else {1: Dim("height"), 2: Dim("width")}
    )
    dynamic = None if signature.size else ({0: Dim("batch"), **spatial},)
    with torch.no_grad():
        program = export(
            module, (example,), dynamic_shapes=dynamic, prefer_deferred_runtime_asserts_over_guards=True
        )
    # What is left of them asks whether some layer has a single element, for the sake of memory layouts in the trace: they
    # would turn away images of up to 32 pixels a side, which the graph does restore.
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program
