"""A picture through a generator as `predict` runs it on a CPU, against the plain eager network, in turn.

    python benchmarks/infer.py [--size 720x1280] [--rounds 5] [--threads 1]

Plain: the network as it is trained, channels last. Ours: what `predict` runs (deblur_train.inference.fast). Paired ratios
of seconds, their median, and the largest difference of the outputs in [-1, 1]. Both keep the memory that they free.
"""

from __future__ import annotations

import statistics

import click
import numpy as np
import torch

from blursynth.common.memory import keep_freed_memory
from deblur_train import build_generator
from deblur_train.evaluation.bench import time_in_turn
from deblur_train.inference.fast import fastest
from deblur_train.inference.fold import folded
from deblur_train.models.base import start_near_identity
from deblur_train.models.norm import BatchNorm, InstanceNorm


@click.command(help=__doc__)
@click.option("--size", default="720x1280", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(size: str, rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory(2**31 - 1, one_arena=True)
    h, w = map(int, size.split("x"))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, h, w)).astype(np.float32))
    x = x.contiguous(memory_format=torch.channels_last)
    for name in ("mobilenet-dsc", "mobilenet", "nafnet"):
        torch.manual_seed(0)
        plain = build_generator(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_near_identity(plain, 0.3)
        with torch.inference_mode():
            # Norms that track nothing let values die away, and arithmetic on what is left of them is slow.
            for layer in plain.modules():
                if isinstance(layer, BatchNorm | InstanceNorm):
                    layer.momentum = 1.0
            plain(x[..., :256, :256])
            plain.eval()
            nets = [plain, fastest(folded(plain))]
            apart = float((nets[0](x) - nets[1](x)).abs().max())
            a, b = time_in_turn([lambda: nets[0](x), lambda: nets[1](x)], rounds)  # noqa: B023
        ratio = statistics.median(p / q for p, q in zip(a, b, strict=True))
        click.echo(
            f"{name:14} plain {statistics.median(a):.3f} s, ours {statistics.median(b):.3f} s, "
            f"ratio {ratio:.2f}x, largest difference {apart:.1e}"
        )


if __name__ == "__main__":
    main()
