"""``interp = "rife"``: the exposure of a window from RIFE's flows, in linear light.

RIFE tells, for any time between two frames, where in each of them the light of that time lies and whose to take.
Those flows and that mask are applied to the frames' *linear* light at trapezoid nodes, and added up; the network's own
output, a blend of display codes, is never averaged, since light adds up and codes do not. One node is held at a time.

Steps are chosen per interval: the network answers for a whole frame at once, so a pixel cannot have its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from blursynth.exposure.ifnet import warp
from blursynth.exposure.integrate import check_collected
from blursynth.exposure.rife import Rife, alone, planes_of
from blursynth.exposure.shutter import Shutter
from blursynth.walk.steps import HOT_STEP_PX, HOT_STEPS, SHORT_PATH, SHORT_PX, STEP_PX

STILL_PX = 0.25
"""Light that moves less than this in an interval is cross-faded, in rows whose exposure covers part of it only."""


class RifeExposure:
    """`exposure.Exposure` with RIFE between the frames: the same interface, for the frames of one window."""

    def __init__(
        self, net: Rife, frames: Sequence[np.ndarray], shutter: Shutter, max_steps: int, scale: float = 1.0,
        path: np.ndarray | None = None,
    ):  # fmt: skip
        """frames: the window's, uint8 RGB (H, W, 3); scale: the network sees them shrunk by it (`flow_scale`); path:
        the camera's, as `exposure.Exposure` takes it."""
        self.net, self.frames, self.shutter, self.max_steps, self.scale, self.path = (
            net, frames, shutter, max_steps, scale, path,
        )  # fmt: skip
        self.size = frames[0].shape[:2]
        self.acc = torch.zeros(1, 3, *self.size, device=net.device)
        self.weight = np.zeros(self.size[0], np.float64)
        self.encoded: dict[int, tuple[Tensor, Tensor]] = {}
        self.steps = 0
        self.longest = 0

    def add(
        self,
        i: int,
        light: tuple[np.ndarray | Tensor, np.ndarray | Tensor],
        smooth: tuple[np.ndarray | Tensor, np.ndarray | Tensor],
        forward: np.ndarray,
        backward: np.ndarray,
    ) -> None:
        """Interval i: linear light of its two frames, their `quasi` versions (all float32 (H, W, 4)), both flows.

        The flows (of any estimator, here DIS) only decide how many steps to take; RIFE's own carry the light.
        """
        start, stop = self.shutter.start, self.shutter.stop
        lo, hi = (np.clip(v - np.float32(i), 0, 1).astype(np.float32) for v in (start, stop))
        span = hi - lo
        if span.max() <= 0:
            return
        length = stop - start
        sway = (
            np.zeros(3)
            if self.path is None
            else self._sway((lo + i - start) / length, (hi + i - start) / length)
        )
        fine = self.shutter.fine
        k = count_steps(forward, backward, float(span.max()), self.max_steps, sway, fine)
        k = max(k, self._steps_of_lamps(light, forward, backward, float(span.max()), sway))
        self.steps += k * int((span > 0).sum()) * self.size[1]
        self.longest = max(self.longest, k)
        still = not (forward.any() or backward.any())
        # Only where a row's whole interval is exposed do the ends alone make a good mean of sub-pixel motion.
        slow = np.where(span == 1, SHORT_PX, np.float32(STILL_PX))
        times, weights = self.shutter.weights(i, np.arange(self.size[0]), k)
        with alone(self.net.device):
            ends = [planes_of(v, self.net.device) for v in light]
            inside = [planes_of(v, self.net.device) for v in smooth]
            for n in range(k + 1):
                t, weight = times[n], weights[n]
                fade = still | (t == 0) | (t == 1) | (weight == 0)
                look = None if self.path is None else self._look((t + i - start) / length)
                value = self._node(i, t, np.where(fade, np.float32(np.inf), slow), ends, inside, look)
                self.acc += self._rows(weight) * value
                self.weight += weight
        self.encoded.pop(i, None)

    def _steps_of_lamps(
        self, light: tuple[np.ndarray | Tensor, np.ndarray | Tensor], forward: np.ndarray, backward: np.ndarray,
        span: float, sway: np.ndarray,
    ) -> int:  # fmt: skip
        """Sub-steps that light above white needs so that it draws a streak and no dashes, by the fastest of it; 1 where
        all of it moves less than `max_steps` steps of STEP_PX reach."""
        camera, way = sway[:2].astype(np.float32), 0.0
        for lamp, flow, sign in ((light[0], forward, 1), (light[1], backward, -1)):
            planes = planes_of(lamp, self.net.device)
            hot = (planes[0].amax(0) > 1).cpu().numpy()
            if hot.any():
                way = max(
                    way, float(np.linalg.norm(flow[hot] * span + sign * camera, axis=1).max() + sway[2])
                )
        if way <= self.max_steps * self.shutter.fine * STEP_PX:
            return 1
        return int(min(np.ceil(way / HOT_STEP_PX), HOT_STEPS))

    def _node(
        self, i: int, t: np.ndarray, slow: np.ndarray, ends: list[Tensor], inside: list[Tensor],
        look: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Light (1, 3, H, W) at times t (H,); where motion is at most `slow` (H,) px, the frames' cross-fade.

        look: (1, 2, H, W) px from each pixel to where it looks under a shaking camera. Flow and mask are then those
        of that place (under a rolling shutter of its row's time, which is less than a hundredth of a frame off).
        """
        when = self._rows(t)
        first, last = ends if look is None else [warp(v, look) for v in inside]
        fade = torch.lerp(first, last, when)
        if np.isinf(slow).all():
            return fade
        for j in (i, i + 1):
            if j not in self.encoded:
                self.encoded[j] = self.net.encode(self.frames[j], self.scale)
        codes = self.encoded[i], self.encoded[i + 1]
        flow, share = self.net.motion(*codes, when[0, 0, :, 0], self.size, self.scale)
        if look is not None:
            flow, share = warp(flow, look), warp(share, look)
        moving = torch.linalg.vector_norm(flow[:, 2:] - flow[:, :2], dim=1, keepdim=True) > self._rows(slow)
        if look is not None:
            flow = flow + torch.cat([look, look], 1)
        value = warp(inside[0], flow[:, :2]) * share + warp(inside[1], flow[:, 2:]) * (1 - share)
        return torch.where(moving, value, fade)

    def _look(self, share: np.ndarray) -> Tensor:
        """(1, 2, H, W) px from each pixel to where it looks at these shares (H,) of the camera's path, mirrored at the
        frame's sides."""
        h, w = self.size
        x, y, roll = (self._rows(v) for v in self._at(share))
        cos, sin = torch.cos(torch.deg2rad(roll)), torch.sin(torch.deg2rad(roll))
        px = torch.arange(w, device=self.net.device, dtype=torch.float32)
        py = torch.arange(h, device=self.net.device, dtype=torch.float32)[:, None]
        xx, yy = px - (w - 1) / 2 - x, py - (h - 1) / 2 - y
        look = ((w - 1) / 2 + cos * xx + sin * yy, (h - 1) / 2 + cos * yy - sin * xx)
        look = tuple((n - 1) - ((n - 1) - v.abs()).abs() for v, n in zip(look, (w, h), strict=True))
        return torch.cat([look[0] - px, look[1] - py], 1)

    def _at(self, share: np.ndarray) -> list[np.ndarray]:
        """x, y, roll of the path at shares (H,) of it."""
        assert self.path is not None
        return [np.interp(share, np.linspace(0, 1, len(self.path)), v) for v in self.path.T]

    def _sway(self, opening: np.ndarray, closing: np.ndarray) -> np.ndarray:
        """The camera's own motion between two shares (H,) of the path, of the middle row: x, y px straight, and by how
        many px the way is longer."""
        assert self.path is not None
        row = len(opening) // 2
        ways = np.array(self._at(np.linspace(opening[row], closing[row], 33)))[:2]
        x, y = ways[:, -1] - ways[:, 0]
        return np.array([x, y, np.hypot(*np.diff(ways)).sum() - np.hypot(x, y)])

    def _rows(self, v: np.ndarray) -> Tensor:
        """(H,) -> float32 (1, 1, H, 1) on the device."""
        return torch.as_tensor(v, dtype=torch.float32, device=self.net.device)[None, None, :, None]

    def linear(self) -> np.ndarray:
        """Mean light of the exposure, float32 (H, W, 3)."""
        check_collected(float(self.weight.min()))
        return (self.acc / self._rows(self.weight))[0].permute(1, 2, 0).cpu().numpy()


def count_steps(
    forward: np.ndarray,
    backward: np.ndarray,
    span: float,
    most: int,
    sway: np.ndarray | None = None,
    fine: int = 1,
) -> int:
    """Sub-steps of an interval of which `span` is exposed: the 95th percentile of the motion of what moves, by the
    integrator's rule.

    Of what moves: a small fast object over a still background deserves its steps too. sway: the camera's own x, y, px,
    and by how much its way is longer than straight; fine: `Shutter.fine`.
    """
    x, y, curl = (0.0, 0.0, 0.0) if sway is None else map(float, sway)
    camera = np.array([x, y], np.float32)
    grid = np.s_[::4, ::4]
    ways = (forward[grid] * span + camera, backward[grid] * span - camera)
    length = np.sqrt(np.maximum(*((v**2).sum(2) for v in ways))) + curl
    moving = length[length > SHORT_PX * span]
    if not moving.size:
        return 1
    path = np.percentile(moving, 95) * fine
    return int(min(max(np.ceil(max(path / STEP_PX, min(path, SHORT_PATH) / SHORT_PX)), 1), most * fine))
