"""What a command loads: no more than it needs, so that --help is at once there and predict never waits for a trainer."""

import subprocess
import sys

import pytest


def loaded(program: str) -> set[str]:
    """Modules in memory after ``program`` has run in a fresh interpreter."""
    text = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    return set(text.split())


def test_help_loads_neither_torch_nor_opencv_nor_pydantic():
    found = loaded("from deblur_train.cli.main import main\nmain(['--help'], standalone_mode=False)")
    assert "deblur_train.cli.main" in found
    assert not found & {"torch", "cv2", "numpy", "pydantic", "rich", "av", "safetensors"}


@pytest.mark.parametrize(
    "program",
    [
        "from deblur_train import predict",
        "import deblur_train.prediction.live",
        "import deblur_train.data.loader",
        "from deblur_train import CropStream",
    ],
)
def test_what_does_not_train_does_not_load_the_trainer(program):
    found = loaded(program)
    assert "deblur_train" in found
    assert not [m for m in found if m.startswith(("deblur_train.training", "deblur_train.cli"))]


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "deblur_train.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert "deblur-train" in done.stdout


def test_public_names_are_functions_whatever_was_imported_before():
    program = (
        "import deblur_train.training.fit, deblur_train.evaluation.evaluate, deblur_train.prediction.predict\n"
        "import deblur_train.exporting.export, deblur_train as d\n"
        "assert all(callable(getattr(d, n)) for n in d.__all__), d.__all__\n"
        "from deblur_train import fit, evaluate, predict, export, build_generator, load_generator, CropStream"
    )
    assert "deblur_train" in loaded(program)
