"""All samples to train on as one endless row: sets mixed by weight, each going through its own epochs.

The samples of an epoch are the shards in a permutation drawn from (seed, epoch), shuffled within each shard; the epochs
follow each other without end. Several sets are mixed by weight: of every few places in the row each set has its share,
in an order drawn from (seed, which few).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from deblur_train.config import ConfigError
from deblur_train.data.index import ShardIndex
from deblur_train.data.pictures import ShardReader


class Mixture:
    """Which set a place in the row belongs to, and which place of that set's own row it is: closed arithmetic."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """``weights`` above 0, one a set. Raises ConfigError for weights so unlike that no 4096 places hold them."""
        exact = [Fraction(str(w)).limit_denominator(1000) for w in weights]
        whole = [f * math.lcm(*(f.denominator for f in exact)) for f in exact]
        parts = [int(w) // math.gcd(*(int(w) for w in whole)) for w in whole]
        if min(parts) < 1 or sum(parts) > 4096:
            words = ",".join(f"{w:g}" for w in weights)
            raise ConfigError(
                f"--mix {words}: too unlike to mix by; their sum over the smallest is at most 4096"
            )
        self.seed, self.parts = seed, parts
        self.sets = np.repeat(np.arange(len(parts)), parts)
        self.block = -1

    def find(self, place: int) -> tuple[int, int]:
        """(number of the set, place in its row) of a place in the mixed row."""
        if len(self.parts) == 1:
            return 0, place
        block, at = divmod(place, len(self.sets))
        if block != self.block:
            self.block = block
            self.order = np.random.default_rng([self.seed, 3, block]).permutation(self.sets)
        chosen = int(self.order[at])
        return chosen, block * self.parts[chosen] + int(np.count_nonzero(self.order[:at] == chosen))


class ShardSet:
    """One set of shards as an endless row of samples: epoch after epoch, each in its own order."""

    def __init__(self, index: ShardIndex, seed: int, number: int) -> None:
        self.index, self.seed, self.number = index, seed, number
        self.shard_of = np.array([s.shard for s in index.samples], dtype=np.int32)
        self.reader = ShardReader(index.paths)
        self.bad: set[int] = set()
        self.orders: dict[int, np.ndarray] = {}

    def samples(self, place: int) -> Iterator[int]:
        """Numbers of the sample at a place of the row and of those behind it in its epoch, as far as they decode."""
        epoch, at = divmod(place, len(self.shard_of))
        order = self.order(epoch)
        for step in range(len(order)):
            number = int(order[(at + step) % len(order)])
            if number not in self.bad:
                yield number

    def order(self, epoch: int) -> np.ndarray:
        """Sample numbers of an epoch in their order."""
        if epoch not in self.orders:
            # Several sets differ in their orders; the first has the one that a single set has.
            rng = np.random.default_rng([self.seed, 0, epoch, *([self.number] if self.number else [])])
            shards = rng.permutation(len(self.index.paths))
            place = np.empty(len(shards), dtype=np.int64)
            place[shards] = np.arange(len(shards))
            self.orders = {e: o for e, o in self.orders.items() if e == epoch - 1}
            self.orders[epoch] = np.lexsort((rng.random(len(self.shard_of)), place[self.shard_of]))
        return self.orders[epoch]
