"""The device, and several ranks under torchrun: joining, sums with gradients, and gradient averaging.

Gradients are averaged by one flat all-reduce after the backward pass rather than by DistributedDataParallel: a GAN
runs its discriminator several times a step, part of the time frozen, and the generator has parameters that are never
used; both are cases in which DDP's hooks need special treatment and a plain sum needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blursynth.common.errors import UserError


class DeviceError(UserError):
    """A device that is not there; the message says what to do."""


def choose_device(wanted: str) -> str:
    """``auto`` is CUDA where torch sees it. Raises DeviceError for a device that is not there."""
    seen = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if seen else "cpu"
    if str(wanted).startswith("cuda") and not seen:
        raise DeviceError(
            f"--device {wanted}: this torch sees no CUDA device; use --device cpu or install a CUDA build of torch"
        )
    if wanted not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=wanted).item()  # others, as "cuda:1", where torch can compute there
        except (RuntimeError, AssertionError, TypeError):
            raise DeviceError(f"device: must be auto, cpu or cuda, not {wanted!r}") from None
    return wanted


def world_size() -> int:
    """Ranks that train together; 1 when not under torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def join(device: str) -> torch.device:
    """Join the process group that torchrun's environment describes, if any; returns this rank's device."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return torch.device(device)


def leave() -> None:
    """End together: a rank that closes its connections while another still uses them takes that one down."""
    if dist.is_available() and dist.is_initialized():
        barrier()
        dist.destroy_process_group()


class _AllReduceMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        y = x.clone()
        dist.all_reduce(y)
        return y / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        # The total loss is the mean of the ranks' losses; each rank's value reaches every rank's loss.
        g = grad.contiguous().clone()
        dist.all_reduce(g)
        return g / dist.get_world_size()


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over the ranks, with gradient; ``x`` itself on one rank."""
    return x if world_size() == 1 else _AllReduceMean.apply(x)


def gather_rows(x: Tensor) -> Tensor:
    """Rows of every rank, in rank order, without gradient: what one rank with the whole batch would hold."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def broadcast_module(module: nn.Module) -> None:
    """Make every rank start from rank 0's parameters and buffers."""
    if world_size() > 1:
        for t in [*module.parameters(), *module.buffers()]:
            dist.broadcast(t.data, 0)


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks, in one flat all-reduce."""
    if world_size() == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world_size()
    at = 0
    for g in grads:
        g.copy_(flat[at : at + g.numel()].view_as(g))
        at += g.numel()


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on every rank as soon as it is true on one (so that all stop at the same step)."""
    if world_size() == 1:
        return flag
    t = torch.tensor(int(flag), device=device)
    dist.all_reduce(t, op=dist.ReduceOp.MAX)
    return bool(t.item())


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()
