"""One training step: the networks, their losses and optimisers. Fast without changing a gradient.

The generator runs once a step for both players, and so do sharp images through the discriminators where their logits give
the generator no gradient; real and fake go through them as one batch where items are independent; they are frozen while
the generator learns, so that their weight gradients are not computed for nothing; what carries no gradient runs without a
graph; memory is channels_last; the optimisers are fused.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from deblur_train.config import RunConfig, TrainConfig
from deblur_train.distributed import average_gradients, broadcast_module
from deblur_train.models.base import Generator, start_near_identity, xavier_init
from deblur_train.models.discriminator import Discriminator, build_discriminators
from deblur_train.models.generator import build_generator
from deblur_train.models.nafnet import NAFNetShape
from deblur_train.models.pretrained import VGGFeatures, load_backbone
from deblur_train.training.losses import AdversarialLoss, ContentLoss

Pair = tuple[Tensor, Tensor]


def build_networks(config: TrainConfig) -> tuple[Generator, nn.ModuleDict]:
    """Fresh networks as the config says, from torch's global generator. Raises CheckpointError for bad weights."""
    generator = build_generator(config.backbone, NAFNetShape(**config.model.shape))
    discriminators = build_discriminators(
        config.discriminator.kind,
        config.discriminator.norm,
        config.discriminator.spectral,
        config.discriminator.width,
    )
    pretrained = config.model.weights != "off"
    if config.model.weight_init == "xavier":
        xavier_init(generator, skip=generator.pretrained if pretrained else None)
        xavier_init(discriminators)
    if pretrained:
        load_backbone(generator, config.model.weights)
    if config.model.near_identity:
        start_near_identity(generator)
    return generator, discriminators


def tune(device: torch.device, run: RunConfig) -> None:
    """Settings of the process for training on CUDA. Where bits may differ, cuDNN tries its kernels and keeps the fastest."""
    if device.type == "cuda":
        torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not run.deterministic
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = run.tf32


class Learner:
    """Everything that learns, and :meth:`step`."""

    def __init__(self, config: TrainConfig, device: torch.device, vgg: VGGFeatures | None = None) -> None:
        self.config, self.device = config, device
        memory = torch.channels_last if config.run.channels_last else torch.contiguous_format
        generator, discriminators = build_networks(config)
        self.generator: Generator = generator.train()
        self.discriminators: nn.ModuleDict = discriminators.train()
        c, o = config.loss, config.optim
        self.content = ContentLoss(
            c.pixel, c.pixel_weight, c.pixel_space, vgg, c.perceptual_weight, c.fft_weight
        )
        for module in (self.generator, self.discriminators, self.content):
            module.to(device=device, memory_format=memory)  # type: ignore[call-overload]
        self.adversarial = AdversarialLoss(self.discriminators, c.adversarial_means, c.detach_means)
        kind = torch.optim.AdamW if o.kind == "adamw" else torch.optim.Adam
        given: dict[str, Any] = {
            "lr": config.schedule.lr,
            "betas": o.betas,
            "weight_decay": o.weight_decay,
            "fused": True,
        }
        self.opt_g = kind(self.generator.parameters(), **given)
        self.opt_d = kind(self.discriminators.parameters(), **given) if len(self.discriminators) else None
        self.average: dict[str, Tensor] | None = None
        self.averaged_steps = 0
        self.amp = config.run.amp == "bf16" or (config.run.amp == "auto" and device.type == "cuda")
        if config.run.compile:
            self.generator.compile()
            for net in self.discriminators.values():
                net.compile()

    def start(self) -> None:
        """Call once the weights to start from are in: ranks agree, the moving average begins."""
        broadcast_module(self.generator)
        broadcast_module(self.discriminators)
        if self.config.optim.ema is not None and self.average is None:
            self.average = {k: v.detach().clone() for k, v in self.generator.state_dict().items()}

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)

    def step(
        self, pairs: list[Pair], lr: float, freeze_backbone: bool = False, fix_norms: bool = False
    ) -> dict[str, Tensor]:
        """One step of both players on ``pairs`` of (blur, sharp), each ``(N, 3, H, W)`` in [-1, 1]; several accumulate.

        Returns detached values: loss_g, loss_d, content, adversarial, grad_norm and the content loss's parts.
        """
        self.generator.freeze_backbone(freeze_backbone)
        self.generator.fix_norms(fix_norms)
        values: dict[str, Tensor] = {}
        share = 1.0 / len(pairs)
        # One batch: its fake serves both players. Several: graphs of all would pile up, so the generator runs again.
        once = len(pairs) == 1
        fakes: list[Tensor] = []
        real_logits: list[dict[str, Tensor]] = []
        weight = self.config.loss.adversarial_weight
        playing = self.opt_d is not None and weight > 0

        if once or playing:
            for blur, _ in pairs:
                with self._autocast(), torch.set_grad_enabled(once):
                    fakes.append(self.generator(blur))
        if playing:
            self._give_references(pairs[0][1])
            self.discriminators.requires_grad_(True)
            for fake, (_, sharp) in zip(fakes, pairs, strict=True):
                with self._autocast():
                    loss_d = self.adversarial.discriminator(fake, sharp)
                real_logits.append(dict(self.adversarial.real_logits))
                (loss_d * share).backward()
                _add(values, "loss_d", loss_d, share)
            self._update(self.opt_d, self.discriminators, lr * self.config.schedule.discriminator_lr_scale)
            self.discriminators.requires_grad_(False)

        for i, (blur, sharp) in enumerate(pairs):
            with self._autocast():
                fake = fakes[i] if once else self.generator(blur)
                content, parts = self.content(fake.float(), sharp)
                loss_g = content
                if playing:
                    adversarial = self.adversarial.generator(fake, sharp, real_logits[i])
                    loss_g = content + weight * adversarial
                    _add(values, "adversarial", adversarial, share)
            (loss_g * share).backward()
            for name, value in {"loss_g": loss_g, "content": content, **parts}.items():
                _add(values, name, value, share)
        values["grad_norm"] = self._update(self.opt_g, self.generator, lr)
        self._track_average()
        return values

    def _give_references(self, sharp: Tensor) -> None:
        for net in self.discriminators.values():
            assert isinstance(net, Discriminator)
            if net.needs_reference:
                net.set_reference(sharp)
                broadcast_module(net)

    def _update(self, optimiser: torch.optim.Optimizer | None, module: nn.Module, lr: float) -> Tensor:
        """Average the gradients over ranks, clip, step, forget them. Returns the norm before clipping."""
        assert optimiser is not None
        average_gradients(module.parameters())
        limit = self.config.optim.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(
            module.parameters(), limit if limit is not None else float("inf")
        )
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def _track_average(self) -> None:
        if self.average is None or self.config.optim.ema is None:
            return
        self.averaged_steps += 1
        # A young average follows closely, or it would hold the random start for thousands of steps.
        decay = min(self.config.optim.ema, (1 + self.averaged_steps) / (10 + self.averaged_steps))
        own = self.generator.state_dict()
        names = [k for k, v in own.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in names], [own[k] for k in names], 1 - decay)

    def weights(self) -> dict[str, Tensor]:
        """The generator's weights to use: the moving average where there is one."""
        return self.average if self.average is not None else self.generator.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "ema": self.average,
            "ema_steps": self.averaged_steps,
            "opt_g": self.opt_g.state_dict(),
            "opt_d": self.opt_d.state_dict() if self.opt_d is not None else None,
            "pools": self.adversarial.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.discriminators.load_state_dict(state["discriminators"])
        if state["ema"] is not None and self.config.optim.ema is not None:
            self.average = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.averaged_steps = state["ema_steps"]
        _restore(self.opt_g, state["opt_g"])
        if self.opt_d is not None:
            _restore(self.opt_d, state["opt_d"])
        self.adversarial.load_state_dict(state["pools"])


def _restore(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load what an optimiser has gathered; its settings stay the config's, which may be others than those saved."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(saved)
    for group, own in zip(optimiser.param_groups, settings, strict=True):
        group.update(own)


def _add(values: dict[str, Tensor], name: str, value: Tensor, share: float) -> None:
    part = value.detach() * share
    values[name] = values[name] + part if name in values else part
