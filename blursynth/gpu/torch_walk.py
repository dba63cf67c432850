"""One interval of an exposure in plain torch, all pixels at once: triton_walk.py's reference, and where Triton cannot run.

The numba loop walks one pixel's path at a time. Here the pixels that walk are sorted by their number of nodes, so that
those still walking at a node are the head of the list: work follows motion. At a node all samples that a pixel takes
are one gather, whatever they are of, and nothing waits for the device but the list. integrate.py says what is computed
and why; names are walk/loop.py's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blursynth.gpu.tensors import Interval, Opening, decode, hot_blocks
from blursynth.walk.loop import STILL
from blursynth.walk.steps import (
    BLOCK,
    FAR,
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


def add_interval(
    acc: Tensor, tally: Tensor, interval: Interval, opening: Opening, i: int, max_steps: int
) -> None:
    """Adds interval i to acc (H * W, 4), and to tally, int64 (any, 3): sub-steps taken, the most by a pixel, pixels
    whose flow is not a number."""
    _Walk(acc, tally, interval, opening, i, max_steps).run()


class _Walk:
    """One interval's flat arrays: rows (H,), pixels (H * W,); samples are (M, S, 2) places x, y of M pixels."""

    def __init__(
        self, acc: Tensor, tally: Tensor, interval: Interval, opening: Opening, i: int, max_steps: int
    ):
        self.acc, self.tally, self.opening, self.lights = acc, tally, opening, interval.lights
        self.h, self.w = interval.forward.shape[:2]
        self.kmax = max_steps * opening.fine
        # Both frames' images in one, and both flows: samples of either are one gather.
        self.images = torch.cat([v.reshape(-1, 4) for v in interval.smooth]).float()
        flows = torch.stack([interval.forward.reshape(-1, 2), interval.backward.reshape(-1, 2)])
        sound = flows.square().sum((0, 2)) < float(FAR) ** 2
        self.flows = torch.where(sound[:, None], flows, 0.0)
        tally[0, 2] += (~sound).sum()
        device = acc.device
        self.corners = torch.tensor([0, 1, self.w, self.w + 1], device=device)
        self.frames = torch.tensor([0, self.h * self.w], device=device)  # each one's first pixel
        self.last = torch.tensor([self.w - 1, self.h - 1], device=device)
        pixel = torch.arange(self.h * self.w, device=device)
        self.y = pixel // self.w
        self.at = torch.stack([pixel % self.w, self.y], 1).float()
        opened = opening.start - i
        lo, hi = opened.clamp(0, 1), (opening.stop - i).clamp(0, 1)
        self.opened, self.lo, self.hi = opened[self.y], lo[self.y], hi[self.y]
        self.length = (opening.stop - opening.start)[self.y]

    def run(self) -> None:
        span, shaken = self.hi - self.lo, self.opening.path is not None
        on = span > 0
        k, reach = self._shaken_steps(span) if shaken else self._steps(span)
        self.k = k * on
        self.tally[0, 0] += self.k.sum()
        self.tally[0, 1] = torch.maximum(self.tally[0, 1], self.k.max())
        self.dt = span / self.k.clamp(min=1)
        self.disputed = self._disputed()
        if shaken:
            return self._nodes(torch.zeros_like(self.k), (self.k + 1) * on, torch.zeros_like(on))
        walks = on & (reach >= float(STILL))
        self._ends(walks, span)
        first = (self.lo == 0).long()
        count = (self.k + 1 - first - (self.hi == 1).long()).clamp(min=0) * walks
        self._nodes(first, count, self.disputed & (self.k > 1))

    def _steps(self, span: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-steps and motion, px, of each pixel: walk/steps.py's `plan_row`."""
        reach = self.flows.square().sum(2).amax(0).sqrt()
        k = self._count(self._shared(reach) * span * self.opening.fine)
        return self._shared(self._add_steps(k, reach * span, reach, self.at)), reach

    def _shaken_steps(self, span: Tensor) -> tuple[Tensor, Tensor]:
        """The same under a shaking camera: walk/steps.py's `plan_shaken_row`."""
        start, stop, odd = (
            self.opening.start,
            self.opening.stop,
            torch.arange(self.h, device=self.y.device) % 2,
        )
        twin = (
            (odd == 1) & (start == start.roll(1)) & (stop == stop.roll(1))
        )  # the row before decides for both
        before = (torch.arange(self.h, device=self.y.device) - twin.long())[self.y].float()
        at = torch.stack([self.at[:, 0] // 2 * 2, before], 1)
        share = (self.lo - self.opened) / self.length, (self.hi - self.opened) / self.length
        (*opening, far0), (*closing, far1) = self._pose(share[0]), self._pose(share[1])
        (*middle, _) = self._pose((share[0] + share[1]) * 0.5)
        flow = self.flows[:, self._nearest(self._look(middle, at))] * span[:, None]
        turn, sin, dx, dy = (b - a for a, b in zip(opening, closing, strict=True))
        x, y = (at - self.last * 0.5).unbind(1)
        sway = torch.stack([turn * x + sin * y + dx, turn * y - sin * x + dy], 1)
        way = torch.stack([flow[0] - sway, flow[1] + sway]).square().sum(2).amax(0).sqrt()
        way = way + (far1 - far0 - torch.hypot(dx, dy)).clamp(min=0)
        reach = way / torch.where(span > 0, span, 1)
        k = self._count(way * self.opening.fine)
        return self._add_steps(k, way, reach, torch.stack([self.at[:, 0], before], 1)), reach

    def _count(self, way: Tensor) -> Tensor:
        """Sub-steps of ways, px."""
        short = way.clamp(max=float(SHORT_PATH)) * (1 / float(SHORT_PX))
        return torch.ceil(torch.maximum(way * (1 / float(STEP_PX)), short)).clamp(1, self.kmax).long()

    def _shared(self, v: Tensor) -> Tensor:
        """Of each BLOCK neighbours in a row the largest."""
        blocks = F.pad(v.view(self.h, self.w), (0, -self.w % BLOCK)).view(self.h, -1, BLOCK).amax(2)
        return blocks.repeat_interleave(BLOCK, 1)[:, : self.w].reshape(-1)

    def _add_steps(self, k: Tensor, way: Tensor, reach: Tensor, at: Tensor) -> Tensor:
        """Sub-steps with those of ways that cross light above white: walk/steps.py's `add_steps`."""
        if not any(isinstance(v, Tensor) or v.hot is not None for v in self.lights):
            return k
        far = ((k >= self.kmax) & (way > self.kmax * float(STEP_PX))).nonzero()[:, 0]
        if not len(far):
            return k
        hots = [hot_blocks(v) if isinstance(v, Tensor) else v.hot for v in self.lights]
        hot = torch.stack([v for v in hots if v is not None]).amax(0) > 0
        at, near = at[far], torch.zeros_like(far, dtype=torch.bool)
        motions = self.flows[:, (at[:, 1] * self.w + at[:, 0]).long()]
        pieces = torch.ceil(reach[far] / HOT_BLOCK)
        most = int(pieces.max())
        for n in range(-most, most + 1):
            for m in (motions[0], -motions[1]):
                place = (
                    torch.minimum((at + (n / pieces)[:, None] * m).clamp(min=0), self.last).long()
                    // HOT_BLOCK
                )
                near |= hot[place[:, 1], place[:, 0]] & (pieces >= abs(n))
        need = torch.ceil(way[far] / float(HOT_STEP_PX)).clamp(self.kmax, max(self.kmax, HOT_STEPS)).long()
        k[far] = torch.where(near, need, k[far])
        return k

    def _disputed(self) -> Tensor:
        """bool (H * W,): walk/vote.py's `find_disputed`."""
        q = torch.arange(self.h * self.w, device=self.y.device).view(self.h, self.w)[::2, ::2].reshape(-1)
        flow = self.flows[:, q].transpose(0, 1)
        led = flow.flip(
            1
        )  # the forward flow is looked at where the backward one leads, and the other way round
        apart2 = (self._flows_at(self.at[q, None] + led) + led).square().sum(2).amax(1)
        far2 = flow.square().sum(2).amax(1)
        wide = (apart2 > float(APART[0]) + float(APART[1]) * far2).view((self.h + 1) // 2, -1)
        return wide.repeat_interleave(2, 0).repeat_interleave(2, 1)[: self.h, : self.w].reshape(-1)

    def _flows_at(self, at: Tensor) -> Tensor:
        """Samples of the forward and the backward flow in turn at places (M, S, 2)."""
        index, weight = self._corners(at)
        flows = self.flows.view(-1, 2)
        sampled = F.embedding_bag(
            index.reshape(-1, 4), flows, mode="sum", per_sample_weights=weight.reshape(-1, 4)
        )
        return sampled.view(at.shape)

    def _corners(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the four pixels about places (M, S, 2), frame 0's and 1's in turn, and their weights (M, S, 4)."""
        at = torch.minimum(at.clamp(min=0), self.last)
        corner = torch.minimum(at.long(), self.last - 1)
        far = at - corner
        x, y = torch.stack([1 - far, far], 3).unbind(2)
        first = corner[..., 1] * self.w + corner[..., 0] + self.frames.repeat(at.shape[1] // 2)
        return first[..., None] + self.corners, (y[..., :, None] * x[..., None, :]).flatten(2)

    def _gather(self, at: Tensor, weight: Tensor) -> Tensor:
        """Light (M, 4): samples at places (M, S, 2), in frame 0 and 1 in turn, by weight (M, S), summed up."""
        index, share = self._corners(at)
        share = (share * weight[..., None]).flatten(1)
        return F.embedding_bag(index.flatten(1), self.images, mode="sum", per_sample_weights=share)

    def _ends(self, walks: Tensor, span: Tensor) -> None:
        """What the frames themselves give: the end nodes of pixels that walk, and all of the others' exposure."""
        lo, hi = self.lo, self.hi
        if self.opening.profile is None:
            first = last = self.dt * 0.5
            still = span * (0.5 * ((1 - lo) + (1 - hi))), span * (0.5 * (lo + hi))
        else:
            one = self.k <= 1
            second, third = (
                torch.where(one, hi, lo + self.dt),
                torch.where(one, lo, lo + (self.k - 1) * self.dt),
            )
            still = self._shares(lo, hi, torch.zeros_like(lo), torch.ones_like(lo))
            first, last = self._shares(lo, second, lo, second)[0], self._shares(third, hi, third, hi)[1]
        early = torch.where(walks, torch.where(lo == 0, first, 0), still[0])
        late = torch.where(walks, torch.where(hi == 1, last, 0), still[1])
        self.exact = torch.stack([decode(v).view(-1, 4) for v in self.lights])
        self.acc += early[:, None] * self.exact[0] + late[:, None] * self.exact[1]

    def _nodes(self, first: Tensor, count: Tensor, contested: Tensor) -> None:
        """Walks nodes first..first + count - 1 of each pixel; contested: where all of them are put to the vote."""
        most = max(self.kmax, HOT_STEPS) + 2
        kind = torch.where(count > 0, count + contested * most, 0)
        occur = torch.zeros(2 * most, dtype=torch.long, device=kind.device)
        occur.index_add_(0, kind, torch.ones_like(kind))
        order = kind.argsort(descending=True, stable=True)
        numbers, begin = occur.tolist(), 0  # the one wait for the device
        for voting in (True, False):
            sizes, walking = [], sum(numbers[voting * most + 1 : (voting + 1) * most])
            end = begin + walking
            for ended in numbers[voting * most + 1 : (voting + 1) * most]:
                sizes.append(walking)
                walking -= ended
            for at in range(begin, end, CHUNK):
                part = order[at : min(at + CHUNK, end)]
                live = [min(max(size - (at - begin), 0), CHUNK) for size in sizes]
                self._walk(part, first[part], [size for size in live if size], voting)
            begin = end

    def _walk(self, part: Tensor, first: Tensor, sizes: list[int], voting: bool) -> None:
        """Nodes of pixels `part`, of which the first sizes[m] take part in the m-th."""
        total = torch.zeros(len(part), 4, device=part.device)
        at, flow, path = self.at[part], self.flows[:, part], self.opening.path
        lo, hi, dt, k = self.lo[part], self.hi[part], self.dt[part], self.k[part]
        opened, length = self.opened[part], self.length[part]
        for m, size in enumerate(sizes):
            n = first[:size] + m
            t = torch.where(n == k[:size], hi[:size], lo[:size] + n * dt[:size])
            weight = self._weight(part[:size], n, t)
            q, f, pixel = at[:size], flow[:, :size], part[:size]
            if path is not None:
                (*pose, _) = self._pose((t - opened[:size]) / length[:size])
                q = self._look(pose, q)
                pixel = self._nearest(q)
                f = self.flows[:, pixel]
            u = 1 - t
            times, both = torch.stack([u, t], 1), f.sum(0)
            places = torch.stack([
                q + t[:, None] * (t[:, None] * both - f[0]), q + u[:, None] * (u[:, None] * both - f[1]),
            ], 1)  # fmt: skip
            if voting:
                light = self._votes(q, f, times, places, self._exact(pixel, times), weight)
            else:
                light = self._gather(places, times * weight[:, None])
            if path is not None:
                doubted = self.disputed[pixel] & (k[:size] > 1) & (t > 0) & (t < 1)
                on = doubted.nonzero()[:, 0]
                fade = self._gather(q[on, None].expand(-1, 2, -1), times[on])
                light[on] = self._votes(q[on], f[:, on], times[on], places[on], fade, weight[on])
            total[:size] += light
        self.acc[part] += total

    def _exact(self, pixel: Tensor, times: Tensor) -> Tensor:
        """The frames' cross-fade (M, 4) at pixels."""
        return times[:, :1] * self.exact[0, pixel] + times[:, 1:] * self.exact[1, pixel]

    def _votes(
        self, at: Tensor, flow: Tensor, times: Tensor, between: Tensor, fade: Tensor, weight: Tensor
    ) -> Tensor:
        """weight * light (M, 4) where the flows disagree: walk/vote.py's `add_vote`. times (M, 2) are u and t, between
        the two places (M, 2, 2) of the two-sided sample, fade the cross-fade's light."""
        m = torch.stack([flow[0], -flow[1]], 1)  # (M, candidate, 2)
        signed = (
            m[:, :, None] * torch.tensor([1.0, -1.0], device=m.device)[:, None]
        )  # as each frame's flow has it
        places = at[:, None, None] - times.flip(1)[:, None, :, None] * signed
        flat = places.flatten(1, 2)
        miss = (self._flows_at(flat).view(signed.shape) - signed).square().sum(3)
        spread = (float(SPREAD[0]) + float(SPREAD[1]) * m.square().sum(2))[..., None]
        borne = (spread / (spread + miss)).square() * ((places >= 0) & (places <= self.last)).all(3)
        vote = borne.prod(2) + float(ONE_SIDED) * borne.square().sum(2)
        share = times[:, None] * borne + 1e-4
        share = share * (vote / share.sum(2))[..., None]
        weights = torch.cat([times * float(BLEND), share.flatten(1)], 1)
        light = self._gather(torch.cat([between, flat], 1), weights) + float(FADE) * fade
        return light * (weight / (vote.sum(1) + float(BLEND + FADE)))[:, None]

    def _weight(self, part: Tensor, n: Tensor, t: Tensor) -> Tensor:
        """Weights (M,) of nodes n, at times t, of pixels `part`."""
        dt, k = self.dt[part], self.k[part]
        if self.opening.profile is None:
            return torch.where((n == 0) | (n == k), dt * 0.5, dt)
        lo, hi = self.lo[part], self.hi[part]
        before, after = lo + (n - 1) * dt, torch.where(n + 1 == k, hi, lo + (n + 1) * dt)
        late = self._shares(before, t, before, t, part)[1]
        early = self._shares(t, after, t, after, part)[0]
        return torch.where(n > 0, late, 0) + torch.where(n < k, early, 0)

    def _shares(
        self, lo: Tensor, hi: Tensor, t0: Tensor, t1: Tensor, part: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """walk/nodes.py's `shares` for pixels `part`, float32."""
        assert self.opening.profile is not None
        opened = self.opened[part]
        per_frame = (self.opening.profile.shape[1] - 1) / self.length[part].double()
        (m0, f0), (m1, f1) = (self._moments((v - opened) * per_frame) for v in (lo, hi))
        at0, at1 = (t0 - opened) * per_frame, (t1 - opened) * per_frame
        late = (f1 - f0 - at0 * (m1 - m0)) / torch.where(at1 > at0, at1 - at0, 1)
        return ((m1 - m0 - late) / per_frame).float(), (late / per_frame).float()

    def _moments(self, at: Tensor) -> tuple[Tensor, Tensor]:
        assert self.opening.profile is not None
        weights, sums, firsts = self.opening.profile
        at = at.clamp(0, len(weights) - 1)
        j = at.long().clamp(max=len(weights) - 2)
        a, p, d = at - j, weights[j], weights[j + 1] - weights[j]
        mass = a * (p + a * d / 2)
        return sums[j] + mass, firsts[j] + j * mass + a * a * (p / 2 + a * d / 3)

    def _pose(self, share: Tensor) -> tuple[Tensor, ...]:
        """walk/nodes.py's `pose_at` at shares (M,) of the camera's path, and the path's length up to there, px."""
        path = self.opening.path
        assert path is not None
        last = len(path) - 1
        at = (share * last).clamp(0, last)
        j = at.long().clamp(max=last - 1)
        dx, dy, roll, far = torch.lerp(path[j], path[j + 1], (at - j)[:, None]).unbind(1)
        sin, turn = roll.sin(), -2 * (roll / 2).sin() ** 2
        return turn, sin, -((turn + 1) * dx + sin * dy), sin * dx - (turn + 1) * dy, far

    def _look(self, pose: list[Tensor], at: Tensor) -> Tensor:
        """Where pixels at (M, 2) look under poses of their own, (M, 2), mirrored at the picture's sides."""
        turn, sin, dx, dy = pose
        x, y = (at - self.last * 0.5).unbind(1)
        at = at + torch.stack([turn * x + sin * y + dx, turn * y - sin * x + dy], 1)
        at = self.last - (self.last - at.abs()).abs()
        return torch.minimum(at.clamp(min=0), self.last)

    def _nearest(self, at: Tensor) -> Tensor:
        """Numbers (M,) of the pixels nearest to places (M, 2)."""
        x, y = (at + 0.5).long().unbind(1)
        return y * self.w + x
