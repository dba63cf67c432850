"""A generator as LiteRT (TensorFlow Lite), through litert-torch: one fixed size a file."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout

import torch

from deblur_train.exporting.graph import Portable
from deblur_train.inference.runtimes import missing_extra


def require_tflite() -> None:
    """Raise ImportError, naming the extra, unless LiteRT files can be written and run."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401
        import litert_torch  # noqa: F401
    except ImportError:
        raise missing_extra("LiteRT export", "tflite") from None


def tflite_model(module: Portable) -> bytes:
    """The module at its fixed size as the bytes of a ``.tflite`` file."""
    require_tflite()
    import litert_torch

    signature = module.signature
    assert signature.size is not None
    h, w = signature.size
    shape = (1, h, w, 3) if signature.layout == "NHWC" else (1, 3, h, w)
    example = torch.zeros(shape, dtype=getattr(torch, signature.dtype))
    # The converter tells its stages to whoever listens; what matters is measured afterwards.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(litert_torch.convert(module.eval(), (example,)).model_content())
