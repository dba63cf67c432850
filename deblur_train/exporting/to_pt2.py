"""A generator as a ``torch.export`` file (.pt2): written here, run here only to check what was just written.

Such a file is a program: its loader unpickles parts of the archive, and evaluates expressions that stand in its JSON as
text (sympy's ``sympify``), so that no list of allowed members makes a stranger's file safe. None is ever read from disk.
"""

from __future__ import annotations

import io
import json

import numpy as np
import torch

from deblur_train.exporting.graph import Portable, trace
from deblur_train.inference.runtimes import Runner, signature_of_file

METADATA = "blursynth.json"


def pt2_model(module: Portable, info: dict[str, str]) -> bytes:
    """The file's bytes, ``info`` inside."""
    held = io.BytesIO()
    torch.export.save(trace(module), held, extra_files={METADATA: json.dumps(info)})
    return held.getvalue()


def pt2_runner(model: bytes, name: str) -> Runner:
    """What ``pt2_model`` gave, running. For bytes of our own only: see above."""
    extra = {METADATA: ""}
    module = torch.export.load(io.BytesIO(model), extra_files=extra).module()
    info = json.loads(extra[METADATA])

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return Runner("pt2", signature_of_file(info, name), run, info)
