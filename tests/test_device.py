"""Which device trains, where this machine has one that lacks what scores need."""

import pytest
import torch

from actlab.errors import InputError
from actlab.networks.machine import accelerator, has_float64, is_accelerated
from actlab.runs.evaluate import make_trainer


@pytest.fixture
def without_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator that torch here cannot even put a number on."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))


def test_the_processor_has_doubles() -> None:
    assert has_float64(torch.device("cpu"))


@pytest.mark.usefixtures("without_doubles")
def test_a_device_without_doubles_is_left_alone() -> None:
    assert accelerator() == accelerator("auto") == accelerator("cpu") == "cpu"
    assert not is_accelerated()
    assert make_trainer({"max_epochs": 1}, ()).strategy.root_device.type == "cpu"


@pytest.mark.usefixtures("without_doubles")
def test_a_device_without_doubles_that_is_asked_for_is_refused() -> None:
    with pytest.raises(InputError, match=r"trainer\.accelerator is gpu, but the device here \(mps\)"):
        make_trainer({"max_epochs": 1, "accelerator": "gpu"}, ())


def test_without_an_accelerator_lightning_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert (accelerator("auto"), accelerator("gpu")) == ("auto", "gpu")
    assert not is_accelerated("auto")
