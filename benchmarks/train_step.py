"""One training step: ours against a plain eager NCHW float32 step of the same networks, in turn, at equal loss.

    python benchmarks/train_step.py --backbone mobilenet-dsc --crop 256 --batch-size 4

The plain step is written as the official code is: default memory layout and torch's own InstanceNorm2d, D(real) and
D(fake) one after the other with full graphs in both players' turns, discriminators not frozen while the generator
learns, unfused Adam. Both start from the same weights and see the same batches; the discriminators' and the content loss
of every step are compared, which tell whether both players got the same gradients in all steps before. (The generator's
loss as it is reported holds the sharp images' share, without gradient, from before the discriminators' update.)
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from torch import nn

from blursynth.common.memory import keep_freed_memory
from deblur_train.config import TrainConfig
from deblur_train.models.norm import InstanceNorm
from deblur_train.training.losses import AdversarialLoss
from deblur_train.training.step import Learner


def plain_norms(module: nn.Module) -> None:
    """Put torch's own instance norm in the place of ours."""
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, nn.InstanceNorm2d(child.channels, track_running_stats=True).train())
        else:
            plain_norms(child)


class PlainStep:
    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(0)
        learner = Learner(
            config.model_copy(update={"run": config.run.model_copy(update={"channels_last": False})}),
            torch.device("cpu"),
        )
        self.g, self.d, self.content, self.weight = (
            learner.generator,
            learner.discriminators,
            learner.content,
            config.loss.adversarial_weight,
        )
        for net in (self.g, self.d):
            plain_norms(net)
            net.to(memory_format=torch.contiguous_format)
        self.losses = AdversarialLoss(self.d, config.loss.adversarial_means).losses
        self.opt_g = torch.optim.Adam(self.g.parameters(), lr=1e-4)
        self.opt_d = torch.optim.Adam(self.d.parameters(), lr=1e-4)

    def step(self, blur: torch.Tensor, sharp: torch.Tensor) -> tuple[float, float]:
        fake = self.g(blur)
        self.opt_d.zero_grad()
        loss_d = sum(
            self.losses[n].discriminator(net(fake.detach()), net(sharp)) for n, net in self.d.items()
        ) / len(self.d)
        loss_d.backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        content = self.content(fake, sharp)[0]
        loss_g = content + self.weight * sum(
            self.losses[n].generator(net(fake), net(sharp)) for n, net in self.d.items()
        ) / len(self.d)
        loss_g.backward()
        self.opt_g.step()
        return loss_d.item(), content.item()


class OurStep:
    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(0)
        self.learner = Learner(config, torch.device("cpu"))
        self.learner.start()

    def step(self, blur: torch.Tensor, sharp: torch.Tensor) -> tuple[float, float]:
        values = self.learner.step(
            [
                (
                    blur.contiguous(memory_format=torch.channels_last),
                    sharp.contiguous(memory_format=torch.channels_last),
                )
            ],
            1e-4,
        )
        return values["loss_d"].item(), values["content"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet-dsc")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "plain"], help="run one alone, to see its memory")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory(2**31 - 1)
    config = TrainConfig.model_validate(
        {
            "backbone": args.backbone,
            "crop": args.crop,
            "batch_size": args.batch_size,
            "loss": {"pixel_space": "signed"},
            "optim": {"kind": "adam"},
        }
    )
    g = torch.Generator().manual_seed(0)
    batches = [
        tuple(torch.rand(args.batch_size, 3, args.crop, args.crop, generator=g) * 2 - 1 for _ in range(2))
        for _ in range(args.steps + 1)
    ]
    sides = {n: s for n, s in (("plain", PlainStep), ("ours", OurStep)) if args.only in (None, n)}
    running = {name: side(config) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    worst = 0.0
    for number, (blur, sharp) in enumerate(batches):
        losses = []
        for name, side in running.items():
            began = time.process_time()
            losses.append(side.step(blur, sharp))
            if number:  # the first step allocates and chooses kernels
                times[name].append(time.process_time() - began)
        if len(losses) == 2:
            worst = max(worst, *(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)))
    for name, t in times.items():
        print(f"{name:6} {statistics.median(t):.3f} CPU s a step (least {min(t):.3f})")
    if len(times) == 2:
        ratios = [p / o for p, o in zip(times["plain"], times["ours"], strict=True)]
        print(
            f"ratio {statistics.median(ratios):.2f}x; largest relative difference of a loss over {args.steps + 1} steps {worst:.1e}"
        )
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
