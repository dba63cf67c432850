"""Compiled loops: what Python would give; out of the cache without numba's compiler; numba itself only where one runs."""

import subprocess
import sys

import pytest

LOOPS = '''
import numpy as np
from blursynth.common.compiled import compiled, inlined

@inlined
def _double(x):
    return x + x

@inlined
def _apply(step, x):
    return step(x) + 1

@compiled
def _one(v):
    return _apply(_double, v)

@compiled
def total(values):
    """The sum."""
    s = 0 * values[0]
    for i in range(len(values)):
        s += _one(values[i])
    return s / (len(values) - len(values) * 1.0)
'''

RUN = """
import sys
import numpy as np
from loops import total
before = "numba" in sys.modules
value = total(np.array([1.5, 2.0], DTYPE))
print(before, value, "numba.cpython.listobj" in sys.modules, sorted(total.dispatcher.stats.cache_misses.values()))
"""


def run(tmp_path, code):
    paths = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", paths + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_a_loop_comes_out_of_the_cache_without_the_compiler_and_still_compiles_for_other_numbers(tmp_path):
    (tmp_path / "loops.py").write_text(LOOPS)
    first = run(tmp_path, RUN.replace("DTYPE", "np.float64"))
    again = run(tmp_path, RUN.replace("DTYPE", "np.float64"))
    # Division by zero goes on: 9 / 0. The cache holds the piece that another loop calls too.
    assert first == ["False", "inf", "True", "[1]"] and again == ["False", "inf", "False", "[]"]
    both = (
        RUN.replace("DTYPE", "np.float64")
        + "print(total(np.array([3, 4], np.int64)), total.dispatcher.nopython_signatures)"
    )
    out = run(tmp_path, both)
    assert out[:4] == again and out[4] == "inf" and "int64" in " ".join(out[5:])


def test_a_loop_keeps_its_name_and_words():
    from blursynth.walk.loop import mean

    assert mean.__name__ == "mean" and "Collected light" in mean.__doc__ and callable(mean)


def test_what_hands_out_the_work_loads_no_numba():
    code = "import sys, blursynth, blursynth.run.make, blursynth.pairs.synthesis, blursynth.run.local\n"
    code += "from blursynth.run.make import check_recipe, resolve\n"
    code += "check_recipe(*resolve('x', 'y', 'realistic', {}))\nprint('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"]
