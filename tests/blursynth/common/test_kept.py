"""Kept values: the same as made anew, and never more bytes than the budget."""

import numpy as np

from blursynth.common.kept import ENTRY, Kept


def test_the_budget_holds_and_what_was_not_asked_for_longest_goes():
    made = []
    kept = Kept(3 * (1000 + ENTRY))

    def value(k):
        made.append(k)
        return np.full(1000, k, np.uint8)

    for k in (1, 2, 3, 1, 4, 1, 2):
        assert (kept.get(k, lambda k=k: value(k)) == k).all()
        assert kept.held <= kept.budget
    assert made == [1, 2, 3, 4, 2], "1 was asked for in between, so 2 went for 4"


def test_what_is_larger_than_the_budget_is_given_and_not_kept():
    kept, made = Kept(1000), []
    kept.get("small", lambda: True)
    for _ in range(2):
        assert kept.get("large", lambda: made.append(1) or np.zeros(2000, np.uint8)).nbytes == 2000
    assert len(made) == 2 and kept.get("small", lambda: False) is True


def test_none_is_a_value_too():
    kept, made = Kept(1000), []
    for _ in range(2):
        assert kept.get("gone", lambda: made.append(1)) is None
    assert len(made) == 1
