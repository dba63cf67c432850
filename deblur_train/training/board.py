"""TensorBoard, where asked for; an optional extra, imported only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blursynth.common.extras import install_extra


class Board:
    """Writes numbers and pictures into ``folder``; does nothing for None. Raises ImportError naming the extra."""

    def __init__(self, folder: Path | None) -> None:
        self.writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                f"run.tensorboard needs the package tensorboard: {install_extra('tensorboard')}"
            ) from None
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def numbers(self, step: int, values: dict[str, float]) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def pictures(self, step: int, rows: list[np.ndarray]) -> None:
        """Each row is ``(H, W, 3)`` uint8 RGB: blurred, restored, sharp side by side."""
        if self.writer:
            for i, row in enumerate(rows):
                self.writer.add_image(f"blurred, restored, sharp/{i}", row, step, dataformats="HWC")

    def close(self) -> None:
        if self.writer:
            self.writer.close()
