"""The exposure of docs/physics.md in plain numpy, float64: slow, and written apart from the compiled loop it is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blursynth.walk.loop import STILL
from blursynth.walk.steps import BLOCK, HOT_BLOCK, HOT_STEP_PX, HOT_STEPS, SHORT_PATH, SHORT_PX, STEP_PX
from blursynth.walk.vote import APART, BLEND, FADE, ONE_SIDED, SPREAD


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear, (N, C); places beyond the picture are drawn onto its rim."""
    h, w = image.shape[:2]
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    i, j = np.minimum(y.astype(int), h - 2), np.minimum(x.astype(int), w - 2)
    a, b = (x - j)[..., None], (y - i)[..., None]
    upper, lower = ((1 - a) * image[i + n, j] + a * image[i + n, j + 1] for n in range(2))
    return (1 - b) * upper + b * lower


def sharpened(light: np.ndarray) -> np.ndarray:
    """[-1, 14, -1] / 12 along both axes; as it is within two pixels of light above white. Stored in half precision."""
    out = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
    for axis in (0, 1):
        before, here, after = (np.take(out, range(n, out.shape[axis] - 2 + n), axis) for n in range(3))
        out = (14 * here - before - after) / 12
    for y, x in zip(*np.nonzero((light > 1).any(2)), strict=True):
        near = np.s_[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        out[near] = light[near]
    return out.astype(np.float32).astype(np.float16).astype(float)


def expose(
    frames: Sequence[np.ndarray],
    flows: Sequence[tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
    stop: np.ndarray,
    fps_up: int,
    path: np.ndarray | None = None,
) -> np.ndarray:
    """Mean linear light, (H, W, 3), of rows that are open, at full weight, from start to stop (H,), in frames.

    frames: linear light (H, W, 3); path: the camera's (P, 3), px, px, degrees, over each row's exposure.
    """
    h, w = frames[0].shape[:2]
    smooth = [sharpened(f) for f in frames]
    light, weight = np.zeros((h, w, 3)), np.zeros((h, w))
    start, stop = (np.broadcast_to(v.astype(float)[:, None], (h, w)) for v in (start, stop))
    for i, flow in enumerate(flows):
        scene = Scene(frames[i : i + 2], smooth[i : i + 2], [f.astype(float) for f in flow])
        lo, hi = np.clip(start - i, 0, 1), np.clip(stop - i, 0, 1)
        share = lambda t, i=i: (t + i - start) / (stop - start)  # noqa: E731
        k = scene.steps(lo, hi, fps_up) if path is None else scene.shaken_steps(lo, hi, fps_up, path, share)
        for n in range(int(k.max()) + 1):
            t = np.where(n == k, hi, lo + n * (hi - lo) / k)
            part = np.where((n == 0) | (n == k), 0.5, 1) * (n <= k) * (hi - lo) / k
            seen = scene.at(t, k > 1) if path is None else scene.shaken_at(t, k > 1, path, share(t))
            light += part[..., None] * seen
            weight += part
    return light / weight[..., None]


class Scene:
    def __init__(self, frames: Sequence, smooth: Sequence, flows: Sequence):
        self.frames, self.smooth, (self.fwd, self.bwd) = frames, smooth, flows
        self.h, self.w = frames[0].shape[:2]
        self.y, self.x = np.mgrid[: self.h, : self.w].astype(float)
        f, b = self.fwd, self.bwd
        self.reach = np.sqrt(np.maximum((f**2).sum(2), (b**2).sum(2)))
        miss = [f + sample(b, self.x + f[..., 0], self.y + f[..., 1])]
        miss += [b + sample(f, self.x + b[..., 0], self.y + b[..., 1])]
        apart = np.maximum(*((m**2).sum(2) for m in miss)) > APART[0] + APART[1] * self.reach**2
        self.disputed = apart[::2, ::2].repeat(2, 0).repeat(2, 1)[: self.h, : self.w]

    def steps(self, lo: np.ndarray, hi: np.ndarray, most: int) -> np.ndarray:
        way = self.reach * (hi - lo)
        return blocks(self.lit(blocks(count(way, most)), way, self.reach, most))

    def lit(self, k: np.ndarray, way: np.ndarray, reach: np.ndarray, most: int) -> np.ndarray:
        """k, and more where a way longer than most steps leads past light above white."""
        rows, columns = self.h // HOT_BLOCK + 1, self.w // HOT_BLOCK + 1
        hot = np.zeros((rows * HOT_BLOCK, columns * HOT_BLOCK), bool)
        hot[: self.h, : self.w] = np.max([(f > 1).any(2) for f in self.frames], 0)
        near = np.zeros((rows, columns), bool)
        for y, x in zip(*np.nonzero(hot), strict=True):
            y, x = y // HOT_BLOCK, x // HOT_BLOCK
            near[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
        k = k.copy()
        for y, x in zip(*np.nonzero(way > most * STEP_PX), strict=True):
            pieces = int(np.ceil(reach[y, x] / HOT_BLOCK))
            for m in (self.fwd[y, x], -self.bwd[y, x]):
                at = np.array([x, y]) + np.arange(-pieces, pieces + 1)[:, None] / pieces * m
                column, row = np.clip(at, 0, [self.w - 1, self.h - 1]).astype(int).T // HOT_BLOCK
                if near[row, column].any():
                    k[y, x] = np.clip(np.ceil(way[y, x] / HOT_STEP_PX), most, max(most, HOT_STEPS))
        return k

    def at(self, t: np.ndarray, voted: np.ndarray) -> np.ndarray:
        """Light at every pixel at times t (H, W) of the interval."""
        fade = (1 - t)[..., None] * self.frames[0] + t[..., None] * self.frames[1]
        motion = self.fwd, self.bwd
        seen = self.moved(self.x, self.y, t, motion, voted & self.disputed, fade)
        return np.where(((t == 0) | (t == 1) | (self.reach < STILL))[..., None], fade, seen)

    def shaken_at(self, t: np.ndarray, voted: np.ndarray, path: np.ndarray, share: np.ndarray) -> np.ndarray:
        x, y = self.look(path, share)
        row, column = (y + 0.5).astype(int), (x + 0.5).astype(int)
        a, b = (sample(s, x, y) for s in self.smooth)
        fade = (1 - t)[..., None] * a + t[..., None] * b
        voted = voted & self.disputed[row, column]
        seen = self.moved(x, y, t, (self.fwd[row, column], self.bwd[row, column]), voted, fade)
        return np.where(((t == 0) | (t == 1))[..., None], fade, seen)

    def look(self, path: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What content each pixel shows: p = R (q - c) + c + (x, y) solved for q, mirrored at the sides."""
        x, y, turn = (np.interp(share, np.linspace(0, 1, len(path)), v) for v in path.T)
        cos, sin, cx, cy = (
            np.cos(np.radians(turn)),
            np.sin(np.radians(turn)),
            (self.w - 1) / 2,
            (self.h - 1) / 2,
        )
        u, v = self.x - cx - x, self.y - cy - y
        both = (cos * u + sin * v + cx, self.w - 1), (cos * v - sin * u + cy, self.h - 1)
        return tuple(np.clip(last - abs(last - abs(q)), 0, last) for q, last in both)  # type: ignore[return-value]

    def shaken_steps(self, lo, hi, most, path, share) -> np.ndarray:
        """By the content in the middle of the way: its own motion less the look's, and what the path curls. The first
        pixel of two decides, and the first row of two that are open at the same times."""
        row, column = ((v + 0.5).astype(int) for v in self.look(path, share((lo + hi) / 2))[::-1])
        inside = lambda at: self.unmirrored(path, share(at))  # noqa: E731
        moved = inside(hi) - inside(lo)
        centre = self.unmirrored(path, share(hi), True) - self.unmirrored(path, share(lo), True)
        pieces = np.append(0, np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T)))
        arc = np.diff(
            [np.interp(share(at), np.linspace(0, 1, len(path)), pieces) for at in (lo, hi)], axis=0
        )[0]
        span = (hi - lo)[..., None]
        ways = self.fwd[row, column] * span - moved, self.bwd[row, column] * span + moved
        way = np.max([np.hypot(*np.moveaxis(v, 2, 0)) for v in ways], 0)
        way += np.maximum(arc - np.hypot(*np.moveaxis(centre, 2, 0)), 0)
        way = way[:, ::2].repeat(2, 1)[:, : self.w]
        k = self.lit(count(way - 1e-5, most), way, way / np.maximum(hi - lo, 1e-9), most)
        alike = (share(lo)[1::2] == share(lo)[:-1:2][: len(k[1::2])]) & (
            lo[1::2] == lo[:-1:2][: len(k[1::2])]
        )
        k[1::2] = np.where(alike, k[:-1:2][: len(k[1::2])], k[1::2])
        return k

    def unmirrored(self, path: np.ndarray, share: np.ndarray, centre: bool = False) -> np.ndarray:
        x, y, turn = (np.interp(share, np.linspace(0, 1, len(path)), v) for v in path.T)
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        u, v = (np.zeros_like(x),) * 2 if centre else (self.x - (self.w - 1) / 2, self.y - (self.h - 1) / 2)
        return np.stack([cos * (u - x) + sin * (v - y), cos * (v - y) - sin * (u - x)], 2)

    def moved(self, x, y, t, motion, voted, fade) -> np.ndarray:
        """The two-sided sample, and the vote of motions where ``voted``."""
        (fx, fy), (bx, by) = (np.moveaxis(m, 2, 0) for m in motion)
        u = 1 - t
        both = u[..., None] * sample(self.smooth[0], x - u * t * fx + t * t * bx, y - u * t * fy + t * t * by)
        both += t[..., None] * sample(
            self.smooth[1], x + u * u * fx - t * u * bx, y + u * u * fy - t * u * by
        )
        light, votes = BLEND * both + FADE * fade, np.full(t.shape, float(BLEND + FADE))
        for mx, my in ((fx, fy), (-bx, -by)):
            places = (x - t * mx, y - t * my), (x + u * mx, y + u * my)
            spread, borne = SPREAD[0] + SPREAD[1] * (mx**2 + my**2), []
            for (px, py), flow, sign in zip(places, (self.fwd, self.bwd), (1, -1), strict=True):
                gx, gy = np.moveaxis(sample(flow, px, py), 2, 0)
                inside = (px >= 0) & (py >= 0) & (px <= self.w - 1) & (py <= self.h - 1)
                miss2 = (gx - sign * mx) ** 2 + (gy - sign * my) ** 2
                borne.append(inside * (spread / (spread + miss2)) ** 2)
            vote = borne[0] * borne[1] + ONE_SIDED * (borne[0] ** 2 + borne[1] ** 2)
            w0, w1 = u * borne[0] + 1e-4, t * borne[1] + 1e-4
            seen = [sample(s, *at) for s, at in zip(self.smooth, places, strict=True)]
            light += (vote / (w0 + w1))[..., None] * (w0[..., None] * seen[0] + w1[..., None] * seen[1])
            votes += vote
        return np.where(voted[..., None], light / votes[..., None], both)


def count(way: np.ndarray, most: int) -> np.ndarray:
    return np.clip(
        np.ceil(np.maximum(way / STEP_PX, np.minimum(way, SHORT_PATH) / SHORT_PX)), 1, most
    ).astype(int)


def blocks(k: np.ndarray) -> np.ndarray:
    """Of each BLOCK pixels in a row the most."""
    wide = np.pad(k, ((0, 0), (0, -k.shape[1] % BLOCK))).reshape(len(k), -1, BLOCK).max(2)
    return wide.repeat(BLOCK, 1)[:, : k.shape[1]]
