"""Which device trains where one lacks what scores need; memory of a training step is kept for the next one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actlab.errors import InputError
from actlab.networks.machine import accelerator, has_float64, is_accelerated, largest_cache
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


# blocks as large as a stack's gradients, freed all together in a thread, as after a step
PROGRAM = """
import resource, sys, threading
import numpy as np
from actlab.networks.machine import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def steps(n):
    for _ in range(n):
        blocks = [np.ones(1 << 20) for _ in range(3)]
        del blocks

def count():
    steps(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    steps(20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_steps_after_the_first_ones_fault_no_pages_in() -> None:
    assert page_faults("kept") < page_faults("as it is") / 20


def test_the_largest_cache_is_read_as_linux_says_it(tmp_path: Path) -> None:
    assert largest_cache(tmp_path) == 0
    for index, text in enumerate(("48K\n", "32M\n", "2048K\n", "\n")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(text)
    assert largest_cache(tmp_path) == 32 << 20
