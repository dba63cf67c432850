"""What the generator and the discriminators are trained on. Images are RGB, ``(N, 3, H, W)``, in [-1, 1]."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from deblur_train.config import PixelLoss
from deblur_train.distributed import all_reduce_mean, gather_rows
from deblur_train.models.pretrained import IMAGENET_STD, VGGFeatures


def pixel_loss(kind: PixelLoss, fake: Tensor, real: Tensor) -> Tensor:
    """Mean over all elements. ``charbonnier``: sqrt(d^2 + 1e-6) (Lai et al. 2017, eq. 4, with eps 1e-3)."""
    d = fake - real
    if kind == "mse":
        return (d * d).mean()
    if kind == "l1":
        return d.abs().mean()
    return torch.sqrt(d * d + 1e-6).mean()


def fft_loss(fake: Tensor, real: Tensor) -> Tensor:
    """L1 distance of the 2-D spectra (MIMO-UNet, Cho et al. 2021, eq. 3), real and imaginary parts apart."""
    spectrum = torch.fft.rfft2(fake.float() - real.float())
    return torch.view_as_real(spectrum).abs().mean()


class ContentLoss(nn.Module):
    """Weighted sum of pixel, perceptual (VGG19) and frequency terms; a term of weight 0 is not computed.

    ``pixel_space`` "imagenet" measures the pixel term on ImageNet-normalised images, as the official perceptual loss
    ``0.006 * feature MSE + 0.5 * pixel MSE`` does; "signed" on the images in [-1, 1].
    """

    def __init__(
        self,
        pixel: PixelLoss = "mse",
        pixel_weight: float = 0.5,
        pixel_space: Literal["signed", "imagenet"] = "signed",
        perceptual: VGGFeatures | None = None,
        perceptual_weight: float = 0.006,
        fft_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.pixel: PixelLoss = pixel
        self.pixel_weight, self.pixel_space = pixel_weight, pixel_space
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.fft_weight = fft_weight

    def forward(self, fake: Tensor, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its unweighted, detached parts by name."""
        parts: dict[str, Tensor] = {}
        total = fake.new_zeros(())
        if self.pixel_weight:
            # A difference of normalised images is the difference of the images, scaled channel by channel.
            scale = (
                torch.tensor(IMAGENET_STD, device=fake.device).view(1, 3, 1, 1) * 2
                if self.pixel_space == "imagenet"
                else None
            )
            a, b = (fake, real) if scale is None else (fake / scale, real / scale)
            parts["pixel"] = pixel_loss(self.pixel, a, b)
            total = total + self.pixel_weight * parts["pixel"]
        if self.perceptual is not None and self.perceptual_weight:
            with torch.no_grad():
                target = self.perceptual(real)
            d = self.perceptual(fake) - target
            parts["perceptual"] = (d * d).mean()
            total = total + self.perceptual_weight * parts["perceptual"]
        if self.fft_weight:
            parts["fft"] = fft_loss(fake, real)
            total = total + self.fft_weight * parts["fft"]
        return total, {k: v.detach() for k, v in parts.items()}


class LogitPool:
    """The mean over the discriminator outputs of the last ``size`` images, oldest dropped first (official code: 50).

    One (sum, number of elements) an image, the sums as a tensor where the logits are: reading them would make a GPU wait.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.sums = torch.zeros(0, dtype=torch.float64)
        self.counts: list[int] = []

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, logits: Tensor) -> None:
        new = gather_rows(logits.detach().flatten(1).double().sum(1))
        self.sums = torch.cat([self.sums.to(new.device), new])[-self.size :]
        self.counts = (self.counts + [logits[0].numel()] * len(new))[-self.size :]

    def mean(self) -> Tensor:
        if not self.counts:
            raise ValueError("the pool of logits is empty: compute the discriminator's loss first")
        return self.sums.sum() / sum(self.counts)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.counts = state["sums"], list(state["counts"])


class RelativisticLSLoss:
    """Relativistic average least-squares GAN loss (Jolicoeur-Martineau 2018; DeblurGAN-v2 eq. 2) on raw logits.

    D = (mean((D(r) - m_fake - 1)^2) + mean((D(f) - m_real + 1)^2)) / 2; G's has both signs turned. The means m are
    ``pool``: over the last 50 images of the discriminator's step, without gradient (official), or ``batch``: over the
    current batch of all ranks, with gradient.
    """

    def __init__(self, means: Literal["pool", "batch"] = "pool", detach_means: bool = False) -> None:
        self.means, self.detach_means = means, detach_means
        self.fake_pool, self.real_pool = LogitPool(), LogitPool()

    def _means(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        if self.means == "pool":
            return self.fake_pool.mean(), self.real_pool.mean()
        m_fake, m_real = all_reduce_mean(fake.mean()), all_reduce_mean(real.mean())
        return (m_fake.detach(), m_real.detach()) if self.detach_means else (m_fake, m_real)

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Loss of the discriminator on logits ``(N, 1, h, w)``; adds them to the pools first."""
        fake, real = fake.float(), real.float()
        if self.means == "pool":
            self.fake_pool.add(fake)
            self.real_pool.add(real)
        m_fake, m_real = self._means(fake, real)
        return ((real - m_fake - 1).square().mean() + (fake - m_real + 1).square().mean()) / 2

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Loss of the generator on logits of the updated discriminator. ``real`` needs no graph: it does not depend on G."""
        fake, real = fake.float(), real.float()
        m_fake, m_real = self._means(fake, real)
        return ((real - m_fake + 1).square().mean() + (fake - m_real - 1).square().mean()) / 2

    def state_dict(self) -> dict[str, Any]:
        return {"fake": self.fake_pool.state_dict(), "real": self.real_pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fake_pool.load_state_dict(state["fake"])
        self.real_pool.load_state_dict(state["real"])


class AdversarialLoss:
    """The relativistic loss averaged over several discriminators, each with its own pools."""

    def __init__(
        self,
        discriminators: nn.ModuleDict,
        means: Literal["pool", "batch"] = "pool",
        detach_means: bool = False,
    ) -> None:
        self.discriminators = discriminators
        self.losses = {name: RelativisticLSLoss(means, detach_means) for name in discriminators}
        self.real_logits: dict[str, Tensor] = {}  # of the last discriminators' step

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Loss for the discriminators' step; ``fake`` is cut from its graph here."""
        terms = []
        for name, net in self.discriminators.items():
            if getattr(
                net, "independent", False
            ):  # both at once: the weights are read and their gradients made once
                fake_logits, real_logits = net(torch.cat([fake.detach(), real.to(fake.dtype)])).chunk(2)
            else:
                fake_logits, real_logits = net(fake.detach()), net(real)
            self.real_logits[name] = real_logits.detach()
            terms.append(self.losses[name].discriminator(fake_logits, real_logits))
        return torch.stack(terms).mean()

    def generator(self, fake: Tensor, real: Tensor, real_logits: dict[str, Tensor] | None = None) -> Tensor:
        """Loss for the generator's step; freeze the discriminators first, their gradients are not wanted.

        ``real_logits``: ``real``'s from the discriminators' step. With pooled means sharp images give the generator no
        gradient, so that these save a pass; the loss's value then holds the sharp images' share from before the
        discriminators' update. Not used with means over the batch.
        """
        terms = []
        for name, net in self.discriminators.items():
            loss = self.losses[name]
            if real_logits is not None and loss.means == "pool":
                held = real_logits[name]
            else:
                with torch.no_grad():
                    held = net(real)
            terms.append(loss.generator(net(fake), held))
        return torch.stack(terms).mean()

    def state_dict(self) -> dict[str, Any]:
        return {name: loss.state_dict() for name, loss in self.losses.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, saved in state.items():
            self.losses[name].load_state_dict(saved)
