"""A picture through a generator as `predict` runs it on a CPU, against the plain eager network, in turn.

    python benchmarks/infer.py [--size 720x1280] [--rounds 5] [--threads 1]

Plain: the network as it is trained, channels last. Ours: norms folded into convolutions. Paired ratios of seconds,
their median, and the largest difference of the outputs in [-1, 1].
"""

from __future__ import annotations

import statistics

import click
import numpy as np
import torch

from deblur_train import build_generator
from deblur_train.evaluation.bench import time_in_turn
from deblur_train.inference.fold import folded
from deblur_train.models.base import start_near_identity


@click.command(help=__doc__)
@click.option("--size", default="720x1280", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(size: str, rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    h, w = map(int, size.split("x"))
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, h, w)).astype(np.float32))
    x = x.contiguous(memory_format=torch.channels_last)
    for name in ("mobilenet-dsc", "mobilenet", "nafnet"):
        torch.manual_seed(0)
        plain = build_generator(name).eval()
        start_near_identity(plain, 0.3)
        nets = [plain, folded(plain)]
        for net in nets:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            apart = float((nets[0](x) - nets[1](x)).abs().max())
            a, b = time_in_turn([lambda: nets[0](x), lambda: nets[1](x)], rounds)  # noqa: B023
        ratio = statistics.median(p / q for p, q in zip(a, b, strict=True))
        click.echo(
            f"{name:14} plain {statistics.median(a):.3f} s, ours {statistics.median(b):.3f} s, "
            f"ratio {ratio:.2f}x, largest difference {apart:.1e}"
        )


if __name__ == "__main__":
    main()
