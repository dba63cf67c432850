"""The integrator of integrate.py for ``device = "cuda"``: one Triton kernel an interval, or torch where it cannot run.

Nothing here waits for the device before the window's end, so that the next pair's flow is computed on the CPU meanwhile.
The first interval of each kind in a process is tried on a small scene by both: see `check_kernel`. Agreement with the
numba loop is within 1 code value (sums run in another order).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from blursynth.exposure.integrate import Coded, check_collected, check_window, radians
from blursynth.exposure.shutter import Shutter, make_shutter
from blursynth.gpu import tensors, torch_walk
from blursynth.gpu.tensors import Interval, Light, Opening, check_device, quasi, to_device

__all__ = ["Exposure", "Light", "check_device", "check_kernel", "place", "quasi", "smooth", "to_device"]

BOUND, SHARE = 1e-4, 0.99
"""Light, white being 1, by which the kernel may differ from torch, at this share of the small scene's pixels: at the edge
of two motions a rounding can decide which of them a shaking camera's pixel meets."""

TALLIES = 1024
"""Rows of the counts, which the kernel's programs share: all in one row they would wait for each other."""


def place(frame: Coded, device: str) -> Light:
    """A frame's light on the device."""
    above = None if frame.above is None else to_device(frame.above, device)
    light = Light(to_device(frame.codes, device), to_device(frame.table, device), above, None)
    restored = above is not None or frame.table.max() > 1
    return light._replace(hot=tensors.hot_blocks(light)) if restored else light


def smooth(light: Light, plain: bool = False, kernel: bool = True) -> Tensor:
    """`tensors.prefilter`, float16 (H, W, 4), by the kernel where it runs."""
    if kernel and _check_prefilter(light.codes.device.type, light.hot is not None):
        from blursynth.gpu import triton_walk

        return triton_walk.prefilter(light, plain)
    return tensors.prefilter(light, plain)


class Exposure:
    """`integrate.Exposure` on a torch device: collects the light of one window, interval by interval.

    integrator: "triton", or "torch" once an interval was torch's; kernel: whether Triton's is to be tried at all.
    """

    def __init__(
        self, height: int, width: int, shutter: Shutter, max_steps: int, device: str = "cuda",
        path: np.ndarray | None = None, kernel: bool = True,
    ):  # fmt: skip
        """Raises RecipeError when torch has no such device, ValueError as `integrate.check_window` does."""
        check_device(device)
        check_window(height, width, shutter, max_steps, path)
        self.device, self.size, self.shutter, self.max_steps, self.kernel = (
            device, (height, width), shutter, max_steps, kernel,
        )  # fmt: skip
        self.acc = torch.zeros(height * width, 4, device=device)
        self.opening = _opening(shutter, path, device)
        self.tally = torch.zeros(TALLIES, 3, dtype=torch.int64, device=device)
        self.integrator = "triton"

    def add(
        self,
        i: int,
        light: tuple[Light | Tensor, Light | Tensor],
        smooth: tuple[Tensor, Tensor],
        forward: np.ndarray | Tensor,
        backward: np.ndarray | Tensor,
    ) -> None:
        """Interval i: linear light of its two frames, of `place` or, for torch alone, float32 (H, W, 4); their
        pre-filtered versions; both flows."""
        if np.max(self.shutter.stop) <= i or np.min(self.shutter.start) >= i + 1:
            return
        flows = [f if isinstance(f, Tensor) else to_device(f, self.device) for f in (forward, backward)]
        for flow in flows:  # the kernel trusts their shapes
            _check(flow, (*self.size, 2), torch.float32)
        for frame, filtered in zip(light, smooth, strict=True):
            _check(filtered, (*self.size, 4), torch.float16, torch.float32)
            if isinstance(frame, Tensor):
                _check(frame, (*self.size, 4), torch.float32)
            else:
                _check(frame.codes, (*self.size, 3), torch.uint8)
        interval = Interval(light, smooth, flows[0], flows[1])
        if self.kernel and _runs(self.device, interval, self.opening):
            from blursynth.gpu import triton_walk

            triton_walk.add_interval(self.acc, self.tally, interval, self.opening, i, self.max_steps)
        else:
            self.integrator = "torch"
            torch_walk.add_interval(self.acc, self.tally, interval, self.opening, i, self.max_steps)

    @property
    def steps(self) -> int:
        """Sub-steps taken in all; waits for the device."""
        return int(self.tally[:, 0].sum())

    @property
    def longest(self) -> int:
        """The most sub-steps of a pixel in an interval; waits for the device."""
        return int(self.tally[:, 1].max())

    def linear(self) -> np.ndarray:
        """Mean light of the exposure, float32 (H, W, 3). Raises ValueError where a pixel collected none."""
        least, faults = float(self.acc[:, 3].min()), int(self.tally[:, 2].sum())
        if faults:
            raise ValueError(f"the flow of {faults} pixels is not finite")
        check_collected(least)
        return (self.acc[:, :3] / self.acc[:, 3:]).reshape(*self.size, 3).cpu().numpy()


def _check(tensor: Tensor, shape: tuple[int, ...], *kinds: torch.dtype) -> None:
    """Raises ValueError unless a tensor has this shape and one of these types."""
    if tensor.shape != shape or tensor.dtype not in kinds:
        raise ValueError(f"need {kinds[0]} {shape}, got {tensor.dtype} {tuple(tensor.shape)}")


def _opening(shutter: Shutter, path: np.ndarray | None, device: str) -> Opening:
    way = radians(path)
    far = np.append(0, np.cumsum(np.hypot(*np.diff(way[:, :2], axis=0).T))) if len(way) else None
    return Opening(
        to_device(shutter.start, device),
        to_device(shutter.stop, device),
        None if shutter.boxed else to_device(np.stack(shutter.integrals), device),
        None if far is None else to_device(np.column_stack([way, far]).astype(np.float32), device),
        shutter.fine,
    )


def _runs(device: str, interval: Interval, opening: Opening) -> bool:
    """Whether the kernel takes an interval of this kind."""
    if any(isinstance(v, Tensor) for v in interval.lights):
        return False
    restored = any(isinstance(v, Light) and v.hot is not None for v in interval.lights)
    return check_kernel(device, restored, opening.profile is not None, opening.path is not None)


@lru_cache
def _check_prefilter(device: str, restored: bool) -> bool:
    """Whether the kernel's pre-filter gives torch's on a small frame; says so in a line where it does not."""

    def differs() -> str | None:
        from blursynth.gpu import triton_walk

        light = _trial_lights(device, restored)[0]
        for plain in (False, True):
            ours, theirs = (
                triton_walk.prefilter(light, plain).float(),
                tensors.prefilter(light, plain).float(),
            )
            off = float((ours - theirs).abs().max())
            if not off <= 0.002:  # float16's last digit between 1 and 4
                return f"pre-filters a small frame {off:.2g} of white off"
        return None

    return _tried(device, differs)


@lru_cache
def check_kernel(device: str, restored: bool = False, profiled: bool = False, shaken: bool = False) -> bool:
    """Whether the kernel gives torch's light of a small scene, within BOUND at SHARE of its pixels and in as many steps;
    asked once a process and kind of interval. Says so in one line on stderr where it does not, or cannot run.

    restored: with light above white; profiled: through a shutter that is no box; shaken: under a shaking camera.
    """
    return _check_prefilter(device, restored) and _tried(
        device, lambda: _difference(device, restored, profiled, shaken)
    )


def _tried(device: str, differs: Callable[[], str | None]) -> bool:
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        return False  # Triton's interpreter runs anywhere, for tests; its compiler needs a GPU
    try:
        why = differs()
    except ImportError as e:
        why = f"needs the package triton ({e})"
    except Exception as e:  # a compiler's, a driver's: whatever it is, torch goes on
        why = f"does not run: {type(e).__name__}: {(str(e).splitlines() or [''])[0][:200]}"
    if why is not None:
        print(f"warning: device {device}: the Triton kernel {why}; torch integrates, slower", file=sys.stderr)
    return why is None


def _trial_lights(device: str, restored: bool) -> list[Light]:
    """Three frames of 40x56 px: a disc crosses a pattern."""
    y, x = np.mgrid[:40, :56].astype(np.float32)
    table = (np.linspace(0, 1, 256, dtype=np.float32) ** 2.2)[:, None].repeat(4, 1)
    table[:, 3] = 1
    lights = []
    for i in range(3):
        inside = _trial_disc(i)
        waves = [np.sin((x - 9 * i) / a) * np.cos((y - 2 * i) / b) for a, b in ((3, 4), (5, 3), (4, 6))]
        spots = [np.sin((x + 6 * i) / a + (y - 5 * i) / b) for a, b in ((3, 2), (2, 4), (3, 5))]
        codes = (127.5 + 120 * np.where(inside, np.stack(spots), np.stack(waves))).transpose(1, 2, 0)
        above = np.zeros((40, 56, 3), np.float16) if restored else None
        if above is not None:
            above[10 + 2 * i : 13 + 2 * i, 12 + 9 * i : 15 + 9 * i] = 3
        lights.append(place(Coded(codes.astype(np.uint8), table, above), device))
    return lights


def _trial_disc(i: int) -> np.ndarray:
    y, x = np.mgrid[:40, :56]
    return (x - 36 + 6 * i) ** 2 + (y - 15 - 5 * i) ** 2 < 11**2


def _difference(device: str, restored: bool, profiled: bool, shaken: bool) -> str | None:
    """How the kernel's light of the small scene differs from torch's, or None."""
    from blursynth.gpu import triton_walk

    profile = np.array([0, 1, 0.4], np.float32) if profiled else None
    shutter = make_shutter(40, 2, 0.8, 0.1, profile)
    path = np.array([[-5, 2, -1.0], [0, 0, 0], [4, -3, 0.8]]) if shaken else None
    opening, lights, results = _opening(shutter, path, device), _trial_lights(device, restored), []
    filtered = [tensors.prefilter(v) for v in lights]
    for way in (triton_walk.add_interval, torch_walk.add_interval):
        acc = torch.zeros(40 * 56, 4, device=device)
        tally = torch.zeros(TALLIES, 3, dtype=torch.int64, device=device)
        for i in range(2):
            motion = [
                np.where(_trial_disc(j)[..., None], s * np.array([-6, 5]), s * np.array([9, 2])).astype(
                    np.float32
                )
                for s, j in ((1, i), (-1, i + 1))
            ]
            flows = [to_device(v, device) for v in motion]
            pair = (lights[i], lights[i + 1]), (filtered[i], filtered[i + 1])
            way(acc, tally, Interval(*pair, flows[0], flows[1]), opening, i, 4)
        results.append(((acc[:, :3] / acc[:, 3:]).cpu(), int(tally[:, 0].sum())))
    (ours, steps), (theirs, wanted) = results
    off = (ours - theirs).abs().amax(1)
    worst = float(off.sort().values[int(SHARE * (len(off) - 1))])
    if not worst <= BOUND or not bool(torch.isfinite(ours).all()):
        return f"differs from torch by {worst:.2g} of white on a small scene"
    if abs(steps - wanted) > 0.01 * wanted:
        return f"takes {steps} steps on a small scene where torch takes {wanted}"
    return None
