"""The pretended device refuses what a GPU's tensors refuse, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sd4match.devices import resolve_device
from sd4match.errors import ConfigError
from sd4match.testing import pretend_accelerator

LATE = """
import torch
from sd4match.testing import pretend_accelerator
torch.ones(1, requires_grad=True).sum().backward()
with pretend_accelerator() as device:
    torch.ones(1, device=device, requires_grad=True).sum().backward()
"""


def test_beside_a_cuda_device_none_is_pretended(monkeypatch):
    """With both in a process, `backward()` on CUDA fails an assertion of torch (2.11 on an H200)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="torch sees a CUDA device: use it"), pretend_accelerator():
        pass


@pytest.fixture
def device():
    with pretend_accelerator() as device:
        yield device


def test_a_name_of_it_is_accepted_where_a_device_is_asked_for(device):
    assert resolve_device("pretend") == "pretend"
    assert torch.zeros(2, device="pretend").device == device
    with pytest.raises(ConfigError, match="'pretend:1' is not here"):
        resolve_device("pretend:1")


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: torch.where(here > 0, here, there),
        lambda here, there: there[(here > 0).long()],
        lambda here, there: here.add_(there),
        lambda here, there: torch.nn.functional.linear(here, there[None]),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mix, device):
    with pytest.raises(RuntimeError, match=r"same device|indices should be"):
        mix(torch.ones(3, device=device), torch.ones(3))


def test_what_a_gpu_allows_is_allowed(device):
    here = torch.arange(6.0, device=device).reshape(2, 3)
    assert (here * torch.tensor(2.0)).device == device  # a number of the CPU
    assert torch.equal(here[torch.tensor([1])].cpu(), torch.tensor([[3.0, 4.0, 5.0]]))
    assert torch.equal(here[[0, 1], [2, 0]].cpu(), torch.tensor([2.0, 3.0]))
    here[[0], :2] = 7.0
    assert here.tolist() == [[7.0, 7.0, 2.0], [3.0, 4.0, 5.0]]
    there = torch.zeros(2, 3)
    there.copy_(here)
    assert there.numpy().sum() == float(here.sum())


def test_numpy_is_refused_unless_forced(device):
    here = torch.ones(2, device=device)
    with pytest.raises(TypeError, match="can't convert pretend:0"):
        here.numpy()
    assert here.numpy(force=True).tolist() == [1.0, 1.0]


def test_gradients_stay_on_the_device(device):
    layer = torch.nn.Linear(3, 1).to(device)
    layer(torch.ones(2, 3, device=device)).sum().backward()
    assert layer.weight.grad.device == device
    assert torch.equal(layer.weight.grad.cpu(), torch.full((1, 3), 2.0))


def test_it_is_gone_after_the_context():
    with pretend_accelerator():
        pass
    assert torch.zeros(2).device.type == "cpu"
    with pretend_accelerator() as device:
        assert torch.zeros(2, device=device).device == device  # and can come again


@pytest.mark.slow
def test_a_late_start_is_said():
    made = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert "enter pretend_accelerator() once before it" in made.stderr, made.stderr
