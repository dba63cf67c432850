import multiprocessing

import pytest
import torch

from deblur_train import build_generator
from deblur_train.models.base import start_near_identity
from deblur_train.models.checkpoint import save_generator


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors, and other tests beside these on the same two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_process_left():
    """Whatever happens in a test, the decoding workers end with what they worked for."""
    yield
    assert not multiprocessing.active_children()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A mobilenet-dsc that gives its input back."""
    torch.manual_seed(0)
    generator = build_generator("mobilenet-dsc")
    start_near_identity(generator, 0.0)
    path = tmp_path_factory.mktemp("c") / "identity.safetensors"
    save_generator(path, "mobilenet-dsc", generator.state_dict())
    return path
