import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors, and other tests beside these on the same two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
