"""Which samples to show: the weakest, the median and the strongest blur, and an even spread between them."""

from __future__ import annotations

from collections import Counter


def pick_ranks(splits: list[str], count: int) -> list[int]:
    """Which positions of a sorted list to show.

    Args:
        splits: split of each position, weakest first. count: how many to pick, at least 1.
    Returns:
        Rising positions: the weakest, the median, the strongest (in this order of need: the median, then both ends),
        the rest evenly spaced between; a split that this would miss takes the place of its nearest neighbour.
    """
    n = len(splits)
    if count >= n:
        return list(range(n))
    middle = (n - 1) // 2
    if count == 1:
        return [middle]
    picks = [round(i * (n - 1) / (count - 1)) for i in range(count)]
    anchors = {0, n - 1}
    if count >= 3:
        nearest = min(range(1, count - 1), key=lambda i: abs(picks[i] - middle))
        picks[nearest] = middle
        anchors.add(middle)
    for split in dict.fromkeys(splits):
        if any(splits[p] == split for p in picks):
            continue
        shown = Counter(splits[p] for p in picks)
        spare = [i for i, p in enumerate(picks) if p not in anchors and shown[splits[p]] > 1]
        if not spare:
            break  # fewer cards than splits: the spread of the blur comes first
        own = [p for p, s in enumerate(splits) if s == split]
        i, p = min(((i, p) for i in spare for p in own), key=lambda ip: abs(picks[ip[0]] - ip[1]))
        picks[i] = p
    return sorted(set(picks))


def rank_name(position: int, n: int) -> str:
    """'weakest', 'median', 'strongest', or 'stronger than 37 %' for a position among n, weakest first."""
    if position == 0:
        return "weakest"
    if position == n - 1:
        return "strongest"
    if position == (n - 1) // 2:
        return "median"
    return f"stronger than {100 * position / (n - 1):.0f} %"
