"""Compiled loops: what Python would give; out of the cache without numba's compiler; numba itself only where one runs."""

import subprocess
import sys

import pytest

from blursynth.common.compiled import Compiled, _tell_once

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


@pytest.mark.slow
def test_a_torn_cache_is_made_anew(tmp_path):
    """After a power cut files may be there and empty."""
    (tmp_path / "loops.py").write_text(LOOPS)
    code = RUN.replace("DTYPE", "np.float64")
    whole = run(tmp_path, code)
    for ending in ("nbi", "nbc"):
        for path in tmp_path.rglob(f"*.{ending}"):
            path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if ending == "nbc" else b"")
        again, after = run(tmp_path, code), run(tmp_path, code)
        assert again == whole and after == ["False", "inf", "False", "[]"]


SAVE = """
import os
import numpy as np
from numba.core.caching import IndexDataCacheFile
from loops import total
def killed(self, name, data):
    os._exit(0)
if KILL:
    IndexDataCacheFile._save_data = killed
print(total(np.array([1.5, 2.0])))
"""


@pytest.mark.slow
def test_code_of_an_older_source_is_never_found_under_the_new_one(tmp_path):
    """A process that is killed between numba's index and its data leaves the index of the new source alone."""
    source = "from blursynth.common.compiled import compiled\n@compiled\ndef total(values):\n    return values[0] NEW\n"
    for text, kill, want in (("", False, "1.5"), (" + 1.0", True, ""), (" + 1.0", False, "2.5")):
        (tmp_path / "loops.py").write_text(source.replace(" NEW", text))
        assert run(tmp_path, SAVE.replace("KILL", str(kill))) == ([want] if want else [])


def test_a_loop_runs_where_nothing_can_be_kept(monkeypatch, capsys):
    from numba.core.caching import CompileResultCacheImpl

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    _tell_once.cache_clear()
    loop = Compiled(_double)
    assert loop(3) == 6 and "cannot be kept" in capsys.readouterr().err


def _double(x):
    return x + x


def test_a_loop_keeps_its_name_and_words():
    from blursynth.walk.loop import mean

    assert mean.__name__ == "mean" and "Collected light" in mean.__doc__ and callable(mean)


def test_what_hands_out_the_work_loads_no_numba():
    code = "import sys, blursynth, blursynth.run.make, blursynth.pairs.synthesis, blursynth.run.local\n"
    code += "from blursynth.run.make import check_recipe, resolve\n"
    code += "check_recipe(*resolve('x', 'y', 'realistic', {}))\nprint('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"]
