"""Minimal filtering gives what the convolution gives, in any strips, and is used only where it pays."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import conv2d

from blursynth.common.compiled import _tell_once
from deblur_train.inference import fast_fpn, filtered
from deblur_train.inference.filtered import Filtered
from deblur_train.inference.fused import Conv


def case(taps: int, size: tuple[int, int], act: str = "none", bias: bool = True):
    torch.manual_seed(0)
    x = torch.randn(1, 16, *size).contiguous(memory_format=torch.channels_last)
    weight, shift = torch.randn(24, 16, taps, taps) / 12, torch.randn(24) if bias else None
    want = conv2d(x.double(), weight.double(), shift.double() if bias else None, padding=1)
    return Conv(weight, shift, act, padding=1), x, want


@pytest.mark.parametrize("strip", [1, 1 << 16, 1 << 24])
@pytest.mark.parametrize("taps", [2, 3])
@pytest.mark.parametrize("size", [(8, 6), (5, 7), (1, 1), (2, 9)])
@torch.no_grad()
def test_values_and_what_is_added(monkeypatch, strip, taps, size):
    """Sides that blocks fill and such that cut them."""
    monkeypatch.setattr(filtered, "STRIP", strip)
    for act, bias in (("none", False), ("relu", True)):
        conv, x, want = case(taps, size, act, bias)
        ours, into = Filtered(conv), torch.randn(want.shape).contiguous(memory_format=torch.channels_last)
        sums = want + into
        if act == "relu":
            want, sums = want.relu(), sums.relu()
        assert ours(x).shape == want.shape
        assert (ours(x) - want).abs().max() < 3e-6
        assert ours.onto(into, x) is into
        assert (into - sums).abs().max() < 3e-6


@torch.no_grad()
def test_nan_shows():
    """Activations of libraries make it 0."""
    conv, x, _ = case(3, (8, 8), "relu")
    x[0, 3, 4, 4] = float("nan")
    assert Filtered(conv)(x).isnan().any()


def test_few_products_and_strides_go_the_plain_way():
    wide, narrow = torch.zeros(64, 64, 3, 3), torch.zeros(64, 24, 3, 3)
    assert isinstance(fast_fpn.filtered(Conv(wide, None, "relu", padding=1)), Filtered)
    for conv in (
        Conv(narrow, None, padding=1),
        Conv(wide, None, padding=1, stride=2),
        Conv(wide, None, "relu6", padding=1),
        Conv(wide, None),
        Conv(torch.zeros(64, 64, 1, 1), None),
    ):
        assert fast_fpn.filtered(conv) is conv


@torch.inference_mode()
def test_threads_share_the_work_and_keep_their_number():
    conv, x, want = case(3, (24, 30), "relu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = Filtered(conv)(x)
        torch.set_num_threads(3)
        assert torch.equal(Filtered(conv)(x), alone)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
    assert (alone - want.relu()).abs().max() < 3e-6


def test_it_runs_where_machine_code_cannot_be_kept(monkeypatch, capsys):
    """A container that is read only: the import ended in a traceback."""
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    _tell_once.cache_clear()
    spec = importlib.util.spec_from_file_location("filtered_anew", filtered.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    conv = Conv(torch.randn(64, 64, 3, 3) / 24, None, padding=1)
    x = torch.randn(1, 64, 6, 8).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(anew.Filtered(conv)(x), conv(x), atol=1e-4, rtol=0)
    assert capsys.readouterr().err.count("cannot be kept") == 1
