"""Normalisation layers: where their statistics come from is a choice, not a side effect of train mode.

The official DeblurGAN-v2 code runs inference in train mode so that its norm layers use the statistics of the image at
hand. Here that is a named mode of the layer, so that a model in eval mode can do either, and export sees plain tensor
arithmetic. All layers take and give ``(N, C, H, W)`` floating point.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from blursynth.common.errors import UsageError
from deblur_train.distributed import all_reduce_mean, world_size

NormStats = Literal["tracked", "image", "local"]


def normalise_by_image(x: Tensor, eps: float) -> Tensor:
    """Each (item, channel) plane to zero mean and unit (biased) variance; plain arithmetic, so that it exports.

    In float32 whatever ``x`` is: squares of float16 activations overflow.
    """
    wide = x.float()
    centred = wide - wide.mean(dim=(2, 3), keepdim=True)
    var = (centred * centred).mean(dim=(2, 3), keepdim=True)
    return (centred * torch.rsqrt(var + eps)).to(x.dtype)


def box_mean(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over a ``size`` window centred at each pixel; near a border, over the nearest whole window."""
    for dim, k in ((2, size[0]), (3, size[1])):
        n = x.shape[dim]
        if k >= n:
            x = x.mean(dim=dim, keepdim=True)
            continue
        sums = torch.cumsum(x, dim=dim)
        first = torch.zeros_like(sums.narrow(dim, 0, 1))
        sums = torch.cat([first, sums], dim=dim)
        windows = (sums.narrow(dim, k, n - k + 1) - sums.narrow(dim, 0, n - k + 1)) / k
        start = (torch.arange(n, device=x.device) - (k - 1) // 2).clamp(0, n - k)
        x = windows.index_select(dim, start)
    return x


def normalise_locally(x: Tensor, eps: float, size: tuple[int, int]) -> Tensor:
    """Normalise each pixel by the statistics of the ``size`` window around it (TLC, Chu et al., ECCV 2022, eq. 3).

    A network trained on crops meets statistics of a whole frame only at test time; local windows of about the
    training crop's size close that gap. Sums run in float64: a running sum over a frame is too long for float32.
    """
    wide = x.double()
    mean = box_mean(wide, size)
    var = (box_mean(wide * wide, size) - mean * mean).clamp_min(0)
    return ((wide - mean) * torch.rsqrt(var + eps)).to(x.dtype)


class StatsChoice:
    """What an eval-mode norm layer normalises by; set on a whole model through :func:`set_norm_stats`."""

    stats: NormStats = "tracked"
    window: int = 0  # "local" only: window side in pixels of the input image
    image_size: tuple[int, int] = (
        0,
        0,
    )  # "local" only: the input image's size, set by the generator's forward

    def local_size(self, x: Tensor) -> tuple[int, int]:
        """The window's height and width on the map ``x``."""
        scale = [x.shape[2] / self.image_size[0], x.shape[3] / self.image_size[1]]
        return max(1, round(self.window * scale[0])), max(1, round(self.window * scale[1]))

    def untracked(self, x: Tensor, eps: float) -> Tensor:
        """``x`` normalised by its own statistics: of the image, or of local windows."""
        if self.stats == "local":
            return normalise_locally(x, eps, self.local_size(x))
        return normalise_by_image(x, eps)


MANY = 512
"""Pixels of a map from which torch's own group norm is the faster one forwards: 0.2 against 1.5 ns a value, below 9 against 3."""


class _ImageNorm(torch.autograd.Function):
    """Each (item, channel) plane normalised, and its mean and biased variance, ``(N, C)``, without gradient; on a CPU.

    Group norm with a group a channel is instance norm, with a channels_last kernel (instance_norm has none), and it hands
    out the statistics it computed. Its gradient takes 7 ns a value, sums over rows of channels one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        n, c, h, w = x.shape
        if h * w >= MANY:
            y, mean, rstd = torch.native_group_norm(x, None, None, n, c, h * w, c, eps)
            mean, rstd = mean.view(n, c), rstd.view(n, c)
            var = rstd.float().pow(-2) - eps
        else:
            flat = x.permute(0, 2, 3, 1).reshape(n, h * w, c).float()
            mean = flat.mean(1)
            flat = flat - mean.unsqueeze(1)
            var = torch.linalg.vector_norm(flat, dim=1).square_().div_(h * w)
            rstd = torch.rsqrt(var + eps)
            y = torch.empty_like(
                x, memory_format=torch.channels_last
            )  # not a view: activations change it in place
            y.permute(0, 2, 3, 1).copy_(flat.mul_(rstd.unsqueeze(1)).view(n, h, w, c))
        ctx.save_for_backward(x, mean, rstd)  # not y, which activations change in place
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        x, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        g, v = (t.permute(0, 2, 3, 1).reshape(n, h * w, c).float() for t in (grad, x))
        v = v - mean.unsqueeze(1)
        along = (g * v).mean(1, keepdim=True).mul_(rstd.float().square().unsqueeze(1))
        of_x = torch.addcmul(g - g.mean(1, keepdim=True), v, along, value=-1).mul_(rstd.float().unsqueeze(1))
        return of_x.to(x.dtype).view(n, h, w, c).permute(0, 3, 1, 2), None


class InstanceNorm(nn.Module, StatsChoice):
    """Instance norm without affine parameters that tracks running statistics; keys as ``nn.InstanceNorm2d``'s."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._train(x)
        if self.stats == "tracked":
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return self.untracked(x, self.eps)

    def _train(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if x.is_cuda or torch.compiler.is_compiling():
            # Plain arithmetic fuses under torch.compile; CUDA's group norm would copy channels_last to NCHW.
            wide = x.float()
            var, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
            y = ((wide - mean) * torch.rsqrt(var + self.eps)).to(x.dtype)
            mean, var = mean.detach().view(n, c), var.detach().view(n, c)
        else:
            y, mean, var = _ImageNorm.apply(x, self.eps)
        with torch.no_grad():
            unbiased = var.mean(0) * (h * w / max(h * w - 1, 1))
            stats = all_reduce_mean(torch.stack([mean.mean(0), unbiased]).float())
            self.running_mean.lerp_(stats[0], self.momentum)
            self.running_var.lerp_(stats[1], self.momentum)
            # nn.InstanceNorm2d leaves num_batches_tracked alone, and so does this.
        return y

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, stats={self.stats}"


class BatchNorm(nn.BatchNorm2d, StatsChoice):
    """Batch norm with the eval-time choice of statistics; synchronised over ranks when training on several.

    torch's own SyncBatchNorm refuses CPU tensors, and two-rank training is tested on CPUs, so the sum over ranks is
    written out here (two small all-reduces a layer, with gradients).
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world_size() > 1:
            return self._synchronised(x)
        if self.training or self.stats == "tracked":
            return super().forward(x)
        y = self.untracked(x, self.eps)
        return y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def _synchronised(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean = all_reduce_mean(wide.mean(dim=(0, 2, 3)))
        centred = wide - mean.view(1, -1, 1, 1)
        var = all_reduce_mean((centred * centred).mean(dim=(0, 2, 3)))
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            count = x.numel() / x.shape[1] * world_size()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / max(count - 1, 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class VirtualBatchNorm(nn.Module):
    """Batch norm by a fixed reference batch (Salimans et al. 2016, section 3.5).

    The first ``reference`` items of every input are the reference batch; they are normalised by their own statistics,
    and every other item by a mixture of theirs and its own, so that items of a batch do not depend on each other.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps
        self.reference = 0  # set by the discriminator that owns the reference batch

    def forward(self, x: Tensor) -> Tensor:
        n = self.reference
        if n < 1:
            raise ValueError("virtual batch norm needs its reference batch first (call set_reference)")
        own_mean = x.mean(dim=(2, 3), keepdim=True)
        own_square = (x * x).mean(dim=(2, 3), keepdim=True)
        ref_mean, ref_square = own_mean[:n].mean(0, keepdim=True), own_square[:n].mean(0, keepdim=True)
        share = torch.full((x.shape[0], 1, 1, 1), 1.0 / (n + 1), dtype=x.dtype, device=x.device)
        share[:n] = 0
        mean = share * own_mean + (1 - share) * ref_mean
        square = share * own_square + (1 - share) * ref_square
        scale = torch.rsqrt((square - mean * mean).clamp_min(0) + self.eps)
        return (x - mean) * scale * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def set_norm_stats(model: nn.Module, stats: NormStats, window: int = 0) -> None:
    """Choose what the norm layers of ``model`` use in eval mode.

    ``tracked``: running statistics. ``image``: each image's own, as official inference does. ``local``: those of
    windows of ``window`` input pixels for instance norms and NAFNet's channel attention (TLC); batch norms then keep
    their running statistics. NAFNet tracks none: its attention sees the whole image unless it is ``local``.
    Raises UsageError for another word.
    """
    if stats not in get_args(NormStats):  # any other word would be taken for "image"
        raise UsageError(f"norm_stats: must be one of {', '.join(get_args(NormStats))}, not {stats!r}")
    if stats == "local" and window < 1:
        raise ValueError("local statistics need a window of at least 1 pixel")
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            layer.stats = "image" if stats == "image" else "tracked"
        elif isinstance(layer, StatsChoice):
            layer.stats, layer.window = stats, window
