"""Learning rate and frozen backbone as pure functions of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from deblur_train.config import ScheduleConfig


def learning_rate(c: ScheduleConfig, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``steps``.

    ``paper`` (DeblurGAN-v2, section 4.1): flat, then linear to ``lr_end`` in the very last step. ``article``: a warm-up
    phase at ``warmup_lr``, a main phase from ``lr`` with a factor ``decay`` an epoch, a last phase at ``finetune_lr``.
    ``modern``: linear warm-up, then a cosine to ``lr_end`` (Loshchilov & Hutter 2017, eq. 5, without restarts).
    """
    if c.kind == "paper":
        flat = round(steps * c.flat_share)
        if step < flat:
            return c.lr
        share = (step - flat + 1) / max(steps - flat, 1)
        return c.lr + (c.lr_end - c.lr) * min(share, 1.0)
    warm = round(steps * c.warmup_share)
    if c.kind == "article":
        if step < warm:
            return c.warmup_lr
        if step >= steps - round(steps * c.finetune_share):
            return c.finetune_lr
        return c.lr * c.decay ** ((step - warm) // c.epoch_steps)
    if step < warm:
        return c.lr * (step + 1) / warm
    share = (step - warm) / max(steps - warm - 1, 1)
    return c.lr_end + (c.lr - c.lr_end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def backbone_frozen(c: ScheduleConfig, step: int, steps: int) -> bool:
    """Whether the backbone is frozen in this step; the article's warm-up phase is so as a whole."""
    share = c.warmup_share if c.kind == "article" else c.frozen_share
    return step < round(steps * share)


def norms_tracked(c: ScheduleConfig, step: int, steps: int) -> bool:
    """Whether the generator's norm layers normalise by their tracked statistics in this step (the last ones)."""
    return step >= steps - round(steps * c.norm_tracked_share)
