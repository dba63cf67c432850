"""What is wrong with a source, before hours are spent on it."""

from .intervals import IntervalChecker

__all__ = ["IntervalChecker"]
