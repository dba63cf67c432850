"""Where things lie: the checkout, and the shared media beside it that a fresh clone does not have."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
