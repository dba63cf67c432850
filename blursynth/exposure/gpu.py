"""The integrator of integrate.py in torch, for ``device = "cuda"``: the same formulae, all pixels at once.

The numba loop walks one pixel's path at a time. Here the pixels that take more than one sub-step are sorted by their
number of sub-steps, so that the ones still walking at step n are the head of the list: work follows motion, and
every step is a few dense gathers. integrate.py says what is computed and why; names are
walk/loop.py's. Agreement with it is
within 1 code value at 99.9% of pixels (sums run in another order).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blursynth.exposure.integrate import QUASI, check_collected, radians
from blursynth.exposure.shutter import Shutter
from blursynth.recipe import RecipeError
from blursynth.walk.loop import STILL
from blursynth.walk.steps import (
    BLOCK,
    HOT_BLOCK,
    HOT_STEP_PX,
    HOT_STEPS,
    SHORT_PATH,
    SHORT_PX,
    STEP_PX,
)
from blursynth.walk.vote import APART, BLEND, FADE, ONE_SIDED, SPREAD

CHUNK = 1 << 20
"""Pixels walked together: bounds what a step holds beside the interval's own frames, flows and step counts."""


def check_device(device: str) -> None:
    """Raises RecipeError when torch has no such device."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        raise RecipeError(
            f"device {device}: {build} finds no CUDA device; use --device cpu, or install a CUDA build of torch "
            "and a driver"
        )


def to_device(light: np.ndarray, device: str) -> Tensor:
    """Linear light (H, W, 4) float32, moved once a frame."""
    return torch.from_numpy(np.ascontiguousarray(light)).to(device)


def quasi(light: Tensor) -> Tensor:
    """`exposure.quasi`: light (H, W, 4) float32, pre-filtered; unchanged around clipped light."""
    x = light.permute(2, 0, 1)[None]
    side, centre = float(QUASI[0]), float(QUASI[1])
    p = F.pad(x, (1, 1, 1, 1), mode="replicate")
    p = centre * p[..., 1:-1] + side * (p[..., :-2] + p[..., 2:])
    p = centre * p[..., 1:-1, :] + side * (p[..., :-2, :] + p[..., 2:, :])
    out = p[0].permute(1, 2, 0)
    hot = (light.amax(2) > 1).float()[None, None]
    near = F.max_pool2d(hot, 5, 1, 2)[0, 0, :, :, None] > 0
    return torch.where(near, light, out).contiguous()


def _sample(image: Tensor, w: int, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """weight (M,) * bilinear samples (M, C), clamped, of an image (H * W, C) of width w at x, y (M,)."""
    h = image.shape[0] // w
    x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
    x0, y0 = x.long().clamp(max=w - 2), y.long().clamp(max=h - 2)
    a, b = x - x0, y - y0
    ab = a * b
    at = y0 * w + x0
    corners = ((0, 1 - a - b + ab), (1, a - ab), (w, b - ab), (w + 1, ab))
    if weight is not None:
        corners = tuple((off, c * weight) for off, c in corners)  # type: ignore[assignment]
    out = image[at] * corners[0][1][:, None]
    for off, c in corners[1:]:
        out.addcmul_(image[at + off], c[:, None])
    return out


class _Interval:
    """Two frames and their flows as flat arrays: light, quasi (H * W, 4); fwd, bwd (H * W, 2); w: width."""

    def __init__(
        self, light: tuple[Tensor, Tensor], smooth: tuple[Tensor, Tensor], forward: Tensor, backward: Tensor
    ):
        self.w = light[0].shape[1]
        self.light0, self.light1 = (v.reshape(-1, 4) for v in light)
        self.quasi0, self.quasi1 = (v.reshape(-1, 4) for v in smooth)
        self.fwd, self.bwd = forward.reshape(-1, 2), backward.reshape(-1, 2)

    def apart2(self, at: Tensor) -> Tensor:
        """Squared disagreement of the flows at pixels `at` (M,), the worse of the two directions."""
        f, b = self.fwd[at], self.bwd[at]
        x, y = at % self.w, at // self.w
        g = _sample(self.bwd, self.w, x + f[:, 0], y + f[:, 1])
        q = _sample(self.fwd, self.w, x + b[:, 0], y + b[:, 1])
        return torch.maximum(((f + g) ** 2).sum(1), ((b + q) ** 2).sum(1))

    def between(self, q: Tensor, x: Tensor, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """s * light (M, 4) at places x, y, by the flows of pixels q, where both agree: SuperSloMo's two-sided sample."""
        (fx, fy), (bx, by) = self.fwd[q].unbind(1), self.bwd[q].unbind(1)
        u = 1 - t
        ut = u * t
        out = _sample(self.quasi0, self.w, x - ut * fx + t * t * bx, y - ut * fy + t * t * by, u * s)
        return out.add_(
            _sample(self.quasi1, self.w, x + u * u * fx - ut * bx, y + u * u * fy - ut * by, t * s)
        )

    def contested(self, q: Tensor, x: Tensor, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """s * light (M, 4) where the flows disagree: the vote of motions of `vote.add_vote`."""
        w, h, u = self.w, self.light0.shape[0] // self.w, 1 - t
        out = self.between(q, x, y, t, torch.full_like(t, float(BLEND)))
        out += float(FADE) * (_sample(self.light0, w, x, y, u) + _sample(self.light1, w, x, y, t))
        total = torch.full_like(t, float(BLEND + FADE))
        for m in (self.fwd[q], -self.bwd[q]):
            mx, my = m.unbind(1)
            ax, ay, cx, cy = x - t * mx, y - t * my, x + u * mx, y + u * my
            spread = float(SPREAD[0]) + float(SPREAD[1]) * (mx * mx + my * my)
            in0 = 1 / (1 + ((_sample(self.fwd, w, ax, ay) - m) ** 2).sum(1) / spread)
            in1 = 1 / (1 + ((_sample(self.bwd, w, cx, cy) + m) ** 2).sum(1) / spread)
            in0 = in0 * in0 * ((ax >= 0) & (ay >= 0) & (ax <= w - 1) & (ay <= h - 1))
            in1 = in1 * in1 * ((cx >= 0) & (cy >= 0) & (cx <= w - 1) & (cy <= h - 1))
            vote = in0 * in1 + float(ONE_SIDED) * (in0 * in0 + in1 * in1)
            w0, w1 = u * in0 + 1e-4, t * in1 + 1e-4
            out += _sample(self.quasi0, w, ax, ay, vote * w0 / (w0 + w1))
            out += _sample(self.quasi1, w, cx, cy, vote * w1 / (w0 + w1))
            total += vote
        return out * (s / total)[:, None]


class Exposure:
    """`exposure.Exposure` on a torch device: collects the light of one window, interval by interval."""

    def __init__(
        self, height: int, width: int, shutter: Shutter, max_steps: int, device: str = "cuda",
        path: np.ndarray | None = None,
    ):  # fmt: skip
        """Raises RecipeError when torch has no such device."""
        check_device(device)
        self.device = device
        self.size = height, width
        self.acc = torch.zeros(height * width, 4, device=device)
        self.shutter = shutter
        self.start, self.stop = (torch.as_tensor(v, device=device) for v in (shutter.start, shutter.stop))
        self.tables: dict[int, Tensor] = {}
        self.path = torch.as_tensor(radians(path), device=device)
        self.max_steps = max_steps
        self.steps = 0
        self.longest = 0

    def add(
        self,
        i: int,
        light: tuple[Tensor, Tensor],
        smooth: tuple[Tensor, Tensor],
        forward: np.ndarray | Tensor,
        backward: np.ndarray | Tensor,
    ) -> None:
        """Interval i: linear light of its two frames, their `quasi` versions (float32 (H, W, 4)), both flows."""
        if np.max(self.shutter.stop) <= i or np.min(self.shutter.start) >= i + 1:
            return
        h, w = self.size
        flows = [torch.as_tensor(f, device=self.device) for f in (forward, backward)]
        scene = _Interval(light, smooth, flows[0], flows[1])
        lo, hi = ((v - i).clamp(0, 1) for v in (self.start, self.stop))
        span = hi - lo
        of_row = torch.arange(h, device=self.device).repeat_interleave(w)
        move2 = torch.maximum((scene.fwd**2).sum(1), (scene.bwd**2).sum(1))
        length = (
            self._shaken_path(i, scene, lo, span, of_row) if len(self.path) else move2.sqrt() * span[of_row]
        )
        length = length * self.shutter.fine
        k = torch.ceil(
            torch.maximum(length / float(STEP_PX), length.clamp(max=float(SHORT_PATH)) / float(SHORT_PX))
        ).long()
        k = k.clamp(1, self.max_steps * self.shutter.fine)
        k = self._add_steps(scene, k, length / self.shutter.fine)
        if not len(self.path):
            k = self._share_steps(k)
        k *= span[of_row] > 0
        self._tabulate(i, k)
        self.steps += int(k.sum())
        self.longest = max(self.longest, int(k.max()))
        many = (k > 1).nonzero()[:, 0]
        # The first pixel of each block of two by two decides for all four.
        firsts = torch.arange(h * w, device=self.device).view(h, w)[::2, ::2]
        apart = torch.cat([scene.apart2(part) for part in firsts.reshape(-1).split(CHUNK)])
        disputed = apart > float(APART[0]) + float(APART[1]) * move2[firsts.reshape(-1)]
        wide = disputed.view(firsts.shape).repeat_interleave(2, 0).repeat_interleave(2, 1)[:h, :w].reshape(-1)
        if len(self.path):
            order = k.argsort(descending=True, stable=True)[: int((k > 0).sum())]
            for part in order.split(CHUNK):
                self._shaken(i, scene, part, lo, hi, k[part], wide)
            return
        wide &= k > 1
        for n_last, t in ((False, lo), (True, hi)):
            self._ends(i, scene, t, span, k, of_row, move2, wide, n_last)
        for contested in (False, True):
            todo = many[wide[many] == contested]
            order = k[todo].argsort(descending=True, stable=True)
            for part in todo[order].split(CHUNK):
                self._interior(i, scene, part, lo[of_row[part]], span[of_row[part]], k[part], contested)

    def _weights(self, i: int, rows: Tensor, n: Tensor | int, k: Tensor, dt: Tensor) -> Tensor:
        """Weights of node n of pixels of the given rows and sub-steps k (M,), dt frames each."""
        if self.shutter.boxed:
            return torch.where((k == n) | (n == 0), dt * 0.5, dt)
        return self.tables[i][k, n, rows]

    def _tabulate(self, i: int, k: Tensor) -> None:
        """`Shutter.weights` of interval i, (K + 1, K + 1, H), for every number of sub-steps that occurs."""
        if self.shutter.boxed:
            return
        most, rows = int(k.max()), np.arange(self.size[0])
        table = np.zeros((most + 1, most + 1, self.size[0]), np.float32)
        for steps in range(1, most + 1):
            table[steps, : steps + 1] = self.shutter.weights(i, rows, steps)[1]
        self.tables = {i: torch.as_tensor(table, device=self.device)}

    def _add_steps(self, scene: _Interval, k: Tensor, length: Tensor) -> Tensor:
        """Sub-steps (H * W,) with those of `steps.add_steps` for ways, px, that cross light above white."""
        (h, w), most = self.size, self.max_steps * self.shutter.fine
        far = (length > most * float(STEP_PX)).nonzero()[:, 0]
        peak = torch.maximum(scene.light0[:, :3].amax(1), scene.light1[:, :3].amax(1)).view(1, 1, h, w)
        if not len(far) or not (peak > 1).any():
            return k
        rows, columns = h // HOT_BLOCK + 1, w // HOT_BLOCK + 1
        hot = F.pad((peak > 1).float(), (0, columns * HOT_BLOCK - w, 0, rows * HOT_BLOCK - h))
        hot = F.max_pool2d(F.max_pool2d(hot, HOT_BLOCK), 3, 1, 1)[0, 0] > 0
        x, y, near = far % w, far // w, torch.zeros_like(far, dtype=torch.bool)
        motions = scene.fwd[far], -scene.bwd[far]
        pieces = int(torch.stack(motions).square().sum(2).sqrt().max() / HOT_BLOCK) + 1
        for s in torch.linspace(-1, 1, 2 * pieces + 1).tolist():
            for m in motions:
                ix, iy = (x + s * m[:, 0]).clamp(0, w - 1).long(), (y + s * m[:, 1]).clamp(0, h - 1).long()
                near |= hot[iy // HOT_BLOCK, ix // HOT_BLOCK]
        need = torch.ceil(length[far] / float(HOT_STEP_PX)).long().clamp(most, max(most, HOT_STEPS))
        k[far] = torch.where(near, need, k[far])
        return k

    def _share_steps(self, k: Tensor) -> Tensor:
        """`steps.share_steps`: the most of each BLOCK neighbours in a row."""
        h, w = self.size
        blocks = F.pad(k.view(h, w), (0, -w % BLOCK)).view(h, -1, BLOCK).amax(2)
        return blocks.repeat_interleave(BLOCK, 1)[:, :w].reshape(-1)

    def _ends(
        self, i: int, scene: _Interval, t: Tensor, span: Tensor, k: Tensor, of_row: Tensor, move2: Tensor,
        wide: Tensor, at_last: bool,
    ) -> None:  # fmt: skip
        """First or last node of every exposed pixel, at its row's time t (H,)."""
        w = scene.w
        on = (k > 0).nonzero()[:, 0]
        at_source = ((t == 0) | (t == 1))[of_row]
        walks = ~at_source & (move2 >= float(STILL) ** 2)
        for chosen, sampler in (
            (~walks, None),
            (walks & ~wide, scene.between),
            (walks & wide, scene.contested),
        ):
            for part in on[chosen[on]].split(CHUNK):
                if not len(part):
                    continue
                rows = of_row[part]
                when = t[rows]
                n = k[part] if at_last else torch.zeros_like(k[part])
                weight = self._weights(i, rows, n, k[part], span[rows] / k[part])
                if sampler is None:
                    light = ((1 - when) * weight)[:, None] * scene.light0[part]
                    light += (when * weight)[:, None] * scene.light1[part]
                else:
                    light = sampler(part, part % w, rows, when, weight)
                light[:, 3] = weight
                self.acc[part] += light  # every pixel is in one part only

    def _interior(
        self, i: int, scene: _Interval, part: Tensor, lo: Tensor, span: Tensor, k: Tensor, contested: bool
    ) -> None:
        """Nodes 1..k-1 of pixels `part`, sorted by k, most first."""
        total = torch.zeros(len(part), 4, device=self.device)
        rows, x = part // self.size[1], part % self.size[1]
        sampler = scene.contested if contested else scene.between
        sizes = torch.bincount(k, minlength=1).flip(0).cumsum(0).flip(0).tolist()  # pixels with k >= n
        for n in range(1, len(sizes) - 1):
            m = sizes[n + 1]
            dt = span[:m] / k[:m]
            t = lo[:m] + n * dt
            weight = self._weights(i, rows[:m], n, k[:m], dt)
            light = sampler(part[:m], x[:m], rows[:m], t, weight)
            light[:, 3] = weight
            total[:m] += light
        self.acc[part] += total

    def _pose(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`nodes.pose_at` at shares (M,) of the camera's path."""
        last = len(self.path) - 1
        at = (share * last).clamp(0, last)
        j = at.long().clamp(max=last - 1)
        dx, dy, roll = torch.lerp(self.path[j], self.path[j + 1], (at - j)[:, None]).unbind(1)
        sin, turn = roll.sin(), -2 * (roll / 2).sin() ** 2
        return turn, sin, -((turn + 1) * dx + sin * dy), sin * dx - (turn + 1) * dy

    def _look(self, pose: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where pixels x, y look under poses of their own, mirrored at the frame's sides; the nearest pixels' numbers."""
        h, w = self.size
        turn, sin, dx, dy = pose
        xx, yy = x - (w - 1) / 2, y - (h - 1) / 2
        qx, qy = x + (turn * xx + sin * yy + dx), y + (turn * yy - sin * xx + dy)
        qx, qy = (((n - 1) - ((n - 1) - v.abs()).abs()).clamp(0, n - 1) for v, n in ((qx, w), (qy, h)))
        return qx, qy, (qy + 0.5).long() * w + (qx + 0.5).long()

    def _shaken_path(self, i: int, scene: _Interval, lo: Tensor, span: Tensor, of_row: Tensor) -> Tensor:
        """Length, px, of the way of each pixel's content (H * W,), the scene's and the camera's motion in one."""
        h, w = self.size
        length = self.stop - self.start
        ends = (lo + i - self.start) / length, (lo + span + i - self.start) / length
        opening, closing = self._pose(ends[0]), self._pose(ends[1])
        x = (torch.arange(w, device=self.device) // 2 * 2).repeat(
            h
        )  # the first pixel of two decides for both
        y = of_row
        q = self._look(tuple(v[of_row] for v in self._pose((ends[0] + ends[1]) / 2)), x, y)[2]
        turn, sin, dx, dy = (b - a for a, b in zip(opening, closing, strict=True))
        pieces = (self.path[1:, :2] - self.path[:-1, :2]).square().sum(1).sqrt()
        at = torch.arange(len(pieces), device=self.device)
        a, b = ((v * len(pieces)).clamp(0, len(pieces))[:, None] for v in ends)
        arc = ((torch.minimum(b, at + 1) - torch.maximum(a, at)).clamp(min=0) * pieces).sum(1)
        curl = (arc - (dx * dx + dy * dy).sqrt()).clamp(min=0)
        xx, yy = x - (w - 1) / 2, y - (h - 1) / 2
        sway = torch.stack([
            turn[of_row] * xx + sin[of_row] * yy + dx[of_row], turn[of_row] * yy - sin[of_row] * xx + dy[of_row],
        ], 1)  # fmt: skip
        open_for = span[of_row, None]
        move2 = torch.maximum(
            (scene.fwd[q] * open_for - sway).square().sum(1), (scene.bwd[q] * open_for + sway).square().sum(1)
        )
        return move2.sqrt() + curl[of_row]

    def _shaken(
        self, i: int, scene: _Interval, part: Tensor, lo: Tensor, hi: Tensor, k: Tensor, wide: Tensor
    ) -> None:
        """All nodes of pixels `part`, sorted by k, most first, under a shaking camera."""
        total = torch.zeros(len(part), 4, device=self.device)
        rows, x = part // scene.w, part % scene.w
        first, last, length = lo[rows], hi[rows], (self.stop - self.start)[rows]
        opened = self.start[rows] - i
        for n in range(int(k[0]) + 1):
            m = int((k >= n).sum())
            dt = (last[:m] - first[:m]) / k[:m]
            t = torch.where(k[:m] == n, last[:m], first[:m] + n * dt)
            weight = self._weights(i, rows[:m], n, k[:m], dt)
            qx, qy, q = self._look(self._pose((t - opened[:m]) / length[:m]), x[:m], rows[:m])
            doubted = wide[q] & (k[:m] > 1)
            frame0, frame1 = t == 0, t == 1
            inner = ~(frame0 | frame1)
            for chosen, sampler in (
                (frame0, lambda q, x, y, t, s: _sample(scene.quasi0, scene.w, x, y, s)),
                (frame1, lambda q, x, y, t, s: _sample(scene.quasi1, scene.w, x, y, s)),
                (inner & ~doubted, scene.between),
                (inner & doubted, scene.contested),
            ):
                on = chosen.nonzero()[:, 0]
                if len(on):
                    light = sampler(q[on], qx[on], qy[on], t[on], weight[on])
                    light[:, 3] = weight[on]
                    total[on] += light
        self.acc[part] += total

    def linear(self) -> np.ndarray:
        """Mean light of the exposure, float32 (H, W, 3)."""
        check_collected(float(self.acc[:, 3].min()))
        out = self.acc[:, :3] / self.acc[:, 3:]
        return out.reshape(*self.size, 3).cpu().numpy()
