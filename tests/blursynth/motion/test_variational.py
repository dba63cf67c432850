"""The refinement finds the motion, puts its edges where the things' edges are, and solves its own linear system."""

import cv2
import numpy as np
import pytest

from blursynth.motion import variational
from blursynth.motion.variational import refine


def texture(h: int, w: int, seed: int) -> np.ndarray:
    """Grey codes, float32, smooth over some pixels."""
    t = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    return np.clip(128 + 180 * cv2.GaussianBlur(t, (0, 0), 2.0), 0, 255)


def shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The image's content moved by (dx, dy)."""
    m = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    return cv2.warpAffine(
        image, m, image.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


@pytest.mark.parametrize("motion", [(0.6, -0.4), (-1.0, 0.8)])
def test_a_small_motion_is_found_from_none(motion):
    a = texture(90, 131, 0)
    found = refine(a, shifted(a, *motion), np.zeros((90, 131, 2), np.float32))
    assert np.abs(found[8:-8, 8:-8] - motion).mean() < 0.05


def test_the_edge_of_a_motion_moves_to_the_edge_of_the_thing():
    """A square over a still ground moves by 4 px; the start has it 6 px too far to the left."""
    ground, square = texture(96, 128, 1), texture(40, 40, 2)
    a, b = ground.copy(), ground.copy()
    a[28:68, 40:80] = square
    b[28:68, 44:84] = square
    truth, start = np.zeros((2, 96, 128, 2), np.float32)
    truth[28:68, 40:80, 0] = 4
    start[28:68, 34:74, 0] = 4
    seen = np.ones((96, 128), bool)
    seen[28:68, 80:84] = False  # ground that the square covers: no flow is right there

    def wrong(flow: np.ndarray) -> int:
        return np.count_nonzero((np.linalg.norm(flow - truth, axis=2) > 1) & seen)

    assert wrong(start) == 480
    assert wrong(refine(a, b, start)) < 48


def test_a_still_pair_stays_still():
    a = texture(64, 70, 3)
    assert np.abs(refine(a, a, np.zeros((64, 70, 2), np.float32))).max() < 1e-3


@pytest.mark.parametrize("size", [(2, 2), (2, 9), (5, 3), (33, 47)])
@pytest.mark.parametrize("start", [0.0, 300.0, -1e30, np.inf, np.nan])
def test_any_start_ends_as_numbers(size, start):
    """Also far outside the frame, and where the start is no number."""
    a, b = texture(*size, 4), texture(*size, 5)
    found = refine(a, b, np.full((*size, 2), start, np.float32))
    assert found.shape == (*size, 2) and np.isfinite(found).all()


def test_sizes_that_differ_are_refused():
    a = texture(16, 16, 6)
    with pytest.raises(ValueError, match="one size"):
        refine(a, a[:, :15], np.zeros((16, 16, 2), np.float32))
    with pytest.raises(ValueError, match="one size"):
        refine(a, a, np.zeros((16, 15, 2), np.float32))


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (3, 4)])
def test_the_sweeps_solve_the_system(size):
    """Against numpy's direct solution of the same equations, read off the checkerboards."""
    h, w = size
    rng = np.random.default_rng(7)
    a, b = texture(h, w, 8), texture(h, w, 9)
    u, v = rng.normal(size=(2, h, w)).astype(np.float32)
    along_x, along_y = np.empty((2, h, w), np.float32)
    system = np.zeros((9, 2, h + 2, (w + 1) // 2 + 2), np.float32)
    there = variational._draw(b, u, v)
    variational._slopes((a + there) / 2, along_x, along_y)
    variational._set_up(along_x, along_y, there - a, u, v, system, np.empty((10, w + w % 2), np.float32))

    def plane(t: int) -> np.ndarray:
        i, j = np.mgrid[:h, :w]
        return system[t, (i + j) % 2, 1 + i, 1 + j // 2].astype(np.float64)

    i11, i12, i22, c1, c2, right, down = (plane(t) for t in range(2, 9))
    assert not right[:, -1].any() and not down[-1].any()
    n = h * w
    matrix, rhs = np.zeros((2 * n, 2 * n)), np.concatenate([c1.ravel(), c2.ravel()])
    for p, (x, y, z) in enumerate(zip(i11.ravel(), i12.ravel(), i22.ravel(), strict=True)):
        block = np.linalg.inv(np.array([[x, y], [y, z]]) / float(variational.OMEGA))
        matrix[np.ix_([p, n + p], [p, n + p])] = block
    for links, step in ((right, 1), (down, w)):
        for p in np.flatnonzero(links.ravel()):
            for at in (0, n):
                matrix[at + p, at + p + step] -= links.ravel()[p]
                matrix[at + p + step, at + p] -= links.ravel()[p]
    exact = np.linalg.solve(matrix, rhs).reshape(2, h, w)
    variational._relax(system, h, w, 300)
    variational._read(system, u, v)
    assert np.abs(np.stack([u, v]) - exact).max() < 2e-3 * max(1, np.abs(exact).max())
