"""Labels say how far the target's content moves over the exposure: known motions come back, shake included."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from blursynth.exposure.shutter import Shutter
from blursynth.motion.flow import PairFlow
from blursynth.pairs.labels import content_motion, moving_mask
from blursynth.pairs.synthesis import Synthesizer
from blursynth.recipe import Recipe
from blursynth.run.make import make
from blursynth.shards.shard import read_shard
from blursynth.shards.webdataset import webdataset_pairs

H, W = 96, 128


def constant(dx: float, dy: float, count: int = 4) -> list[PairFlow]:
    f = np.empty((H, W, 2), np.float32)
    f[:] = (dx, dy)
    return [PairFlow(f, -f)] * count


def opened(start: float, stop: float, readout: float = 0.0) -> Shutter:
    late = readout * ((np.arange(H) + 0.5) / H - 0.5)
    return Shutter(
        (start + late).astype(np.float32), (stop + late).astype(np.float32), np.ones(2, np.float32)
    )


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1.25, 2.75), (2.5, 3.5)])
def test_a_pan_moves_by_its_speed_times_the_exposure(start, stop):
    flow, length = content_motion(constant(3, -1), 2, opened(start, stop))
    assert np.allclose(flow, np.array([3, -1]) * (stop - start), atol=1e-3)
    assert np.allclose(length, np.hypot(3, 1) * (stop - start), atol=1e-2)
    assert (moving_mask(length) == 255).all()


def test_content_is_followed_through_a_flow_that_differs_from_place_to_place():
    """A zoom about the middle, 2% an interval: exact positions are powers of 1.02."""
    y, x = np.mgrid[:H, :W].astype(np.float32)
    away = np.stack([x - (W - 1) / 2, y - (H - 1) / 2], -1)
    pairs = [PairFlow(0.02 * away, (1 / 1.02 - 1) * away)] * 4
    flow, _ = content_motion(pairs, 2, opened(0, 4))
    inner = np.s_[8:-8, 8:-8]
    assert np.allclose(flow[inner], (1.02**2 - 1.02**-2) * away[inner], atol=0.01)


def test_there_and_back_moves_but_ends_where_it_began():
    pairs = constant(4, 0, 1) + constant(-4, 0, 1)
    flow, length = content_motion(pairs, 1, opened(0, 2))
    assert np.allclose(flow, 0, atol=1e-4) and np.allclose(length, 8, atol=1e-2)


@pytest.mark.parametrize("v", [(5, 0), (-4, 3)])
def test_background_that_a_moving_thing_passes_over_stays_where_it_is(v):
    """A box over a background at rest: the flow at a covered place is the box's, and dragged the background along."""
    y, x = np.mgrid[:H, :W]

    def box(i):
        inside = (abs(x - 30 - v[0] * i) < 8) & (abs(y - 24 - v[1] * i) < 8)
        return inside, (inside[..., None] * np.array(v)).astype(np.float32)

    pairs = [PairFlow(box(i - 2)[1], -box(i - 1)[1]) for i in range(4)]
    flow, length = content_motion(pairs, 2, opened(0.5, 3.5))
    assert np.allclose(flow, 3 * box(0)[1], atol=1e-3)
    assert np.array_equal(moving_mask(length) == 255, box(0)[0])


@pytest.mark.parametrize("readout", [2.0, 4.0, 6.0])
@pytest.mark.parametrize("v", [(6, 0), (0, 6)])
def test_under_a_readout_a_row_knows_nothing_of_when_it_is_not_exposed(v, readout):
    """A box over a background at rest: each pixel's content is what stands there at its row's own instant. What passed
    over it while other rows were open made up to a quarter of all pixels wrong; what is left is the box's rim."""
    y, x = np.mgrid[:H, :W]

    def box(i):
        return (abs(x - 64 - v[0] * (i - 4)) < 26) & (abs(y - 48 - v[1] * (i - 4)) < 26)

    motion = [box(i)[..., None] * np.array(v, np.float32) for i in range(9)]
    shutter = opened(readout / 2, 8 - readout / 2, readout)
    flow, length = content_motion([PairFlow(a, -b) for a, b in pairwise(motion)], 4, shutter, readout)
    seen = box(4 + readout * ((np.arange(H)[:, None] + 0.5) / H - 0.5))
    way = (8 - readout) * np.array(v)
    assert np.mean(np.abs(flow - seen[..., None] * way).max(2) > 1) < 0.045
    assert np.mean((moving_mask(length) == 255) != seen) < 0.03


def test_a_still_scene_moves_by_its_shake_and_rows_by_their_own_time():
    path = np.zeros((33, 3))
    path[:, 0], path[:, 2] = np.linspace(-3, 5, 33), np.linspace(-1, 1, 33)
    flow, length = content_motion(constant(0, 0), 2, opened(0, 4), shake=path)
    y, x = np.mgrid[:H, :W]
    cx, cy, turn = (W - 1) / 2, (H - 1) / 2, np.radians(1)
    want = np.stack([8 - 2 * np.sin(turn) * (y - cy), 2 * np.sin(turn) * (x - cx)], -1)
    assert np.allclose(flow, want, atol=1e-3)
    assert np.allclose(length[H // 2, W // 2], 8, atol=0.05)
    # A rolling shutter: each row's exposure is a frame long, about its own middle.
    flow, _ = content_motion(constant(5, 0), 1.5, opened(1, 2, 0.8), 0.8)
    assert np.allclose(flow, (5, 0), atol=1e-3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A textured pan of 3 px a frame to the left, over a lower third that stands still."""
    folder = tmp_path_factory.mktemp("labels") / "src" / "clip"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    t = cv2.GaussianBlur(rng.integers(0, 256, (192, 400, 3)).astype(np.uint8), (0, 0), 2)
    t = cv2.normalize(t, None, 0, 255, cv2.NORM_MINMAX)
    for i in range(18):
        frame = t[:, 3 * i : 3 * i + 256].copy()
        frame[128:] = t[128:, :256]
        cv2.imwrite(str(folder / f"{i:06d}.png"), frame)
    return folder.parent


@pytest.mark.parametrize("interp", ["dis", "none"])
def test_labels_stand_beside_the_pair_and_are_read(source, tmp_path, interp):
    recipe = Recipe(interp=interp, fps=240, window="5", labels="mask,flow", val_fraction=0)
    summary = make(source, tmp_path / "d", recipe, workers=1, quiet=True)
    assert summary.samples == 3, summary
    for tar in (tmp_path / "d").glob("*.tar"):
        for sample in read_shard(tar):
            assert {"flow.npy", "mask.png"} <= sample.keys()
    _, _, flow, mask = next(iter(webdataset_pairs(tmp_path / "d", shuffle=0, labels=("flow", "mask"))))
    assert flow.shape == (192, 256, 2) and flow.dtype == np.float16 and mask.shape == (192, 256)
    assert np.allclose(np.median(flow[20:100, 30:-30], (0, 1)), (-12, 0), atol=0.2)
    assert np.abs(flow[150:-10, 30:-30]).max() < 0.5
    assert (mask[20:100, 30:-30] == 255).mean() > 0.98 and (mask[150:-10, 30:-30] == 0).all()


def test_labels_are_cut_with_their_tile_and_follow_the_shake(source, tmp_path):
    recipe = Recipe(interp="dis", fps=240, window="5", labels="flow", tile=96, val_fraction=0)
    make(source, tmp_path / "t", recipe, workers=1, quiet=True)
    samples = [s for tar in sorted((tmp_path / "t").glob("*.tar")) for s in read_shard(tar)]
    assert {len(s["flow.npy"]) for s in samples} == {128 + 96 * 96 * 2 * 2}
    frames = [cv2.imread(str(source / "clip" / "000000.png"))] * 5
    made = Synthesizer(Recipe(interp="dis", labels="flow", shake="9")).sample(
        "c", frames, 0, None, np.random.default_rng(2)
    )
    path = np.array(made.exposure["shake"]["path"])
    middle = made.labels["flow"][95:97, 127:129].mean((0, 1)).astype(float)
    assert np.allclose(middle, path[-1, :2] - path[0, :2], atol=0.05)


def test_a_label_that_there_is_not_is_said():
    with pytest.raises(ValueError, match="must be flow, mask"):
        Recipe(labels="depth")
