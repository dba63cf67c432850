"""Run by torchrun: some steps of one learner per rank on this rank's part of a fixed batch; rank 0 writes the result."""

import sys

import torch

from deblur_train import distributed
from deblur_train.config import TrainConfig
from deblur_train.training.step import Learner
from tests.helpers.golden import image

STEPS = 3


def run(means: str, norm: str, out: str) -> None:
    torch.set_num_threads(1)
    device = distributed.join("cpu")
    rank, ranks = distributed.rank(), distributed.world_size()
    # Ranks start from different weights on purpose: start() must make them agree.
    torch.manual_seed(rank)
    learner = Learner(
        TrainConfig.model_validate(
            {
                "backbone": "mobilenet-dsc",
                "model": {"near_identity": True},
                "discriminator": {"kind": "patch", "width": 8, "norm": norm},
                "loss": {"adversarial_means": means, "adversarial_weight": 0.1, "pixel_space": "signed"},
                "optim": {"kind": "adam", "betas": (0.5, 0.9), "clip_norm": 1.0},
            }
        ),
        device,
    )
    learner.start()
    gradients: list[torch.Tensor] = []  # of the first step: the discriminator's, then the generator's
    update = learner._update

    def recording(optimiser, module, lr):
        distributed.average_gradients(module.parameters())  # once more changes nothing: they are equal then
        if len(gradients) < 2:
            gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
        return update(optimiser, module, lr)

    learner._update = recording
    values = []
    for step in range(STEPS):
        blur, sharp = image(10 + step, [4, 3, 64, 64]), image(20 + step, [4, 3, 64, 64])
        part = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
        row = learner.step([(blur[part], sharp[part])], 1e-3)
        names = ("loss_g", "loss_d", "content", "adversarial", "grad_norm")
        values.append(distributed.all_reduce_mean(torch.stack([row[k] for k in names])))
    if rank == 0:
        torch.save(
            {
                "values": torch.stack(values),
                "gradients": gradients,
                "pools": learner.adversarial.state_dict(),
            },
            out,
        )
    distributed.leave()


if __name__ == "__main__":
    run(*sys.argv[1:])
