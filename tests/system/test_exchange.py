"""Pairs that were taken elsewhere, all the way: packed, trained on, measured."""

from __future__ import annotations

import pytest

from blursynth import pack
from deblur_train.evaluation.evaluate import evaluate
from deblur_train.evaluation.pair_sources import pairs_from_shards
from deblur_train.training.fit import fit
from tests.deblur_train.training.test_fit import quiet, tiny
from tests.helpers.pair_trees import put, realblur


@pytest.mark.slow
def test_a_packed_set_is_trained_on_and_measured(tmp_path):
    root = realblur(tmp_path / "set", 4, 2)
    for path in root.rglob("*.png"):
        put(path, size=(96, 72))
    pack(root, tmp_path / "d", val_fraction=0.25)
    result = fit(tiny(tmp_path / "run", tmp_path / "d"), console=quiet())
    assert result.steps == 6 and result.best_psnr is not None
    measured = evaluate(
        pairs_from_shards(str(tmp_path / "d"), "val", None),
        str(tmp_path / "run" / "best.safetensors"),
        console=quiet(),
    )
    assert measured["images"] == 2
