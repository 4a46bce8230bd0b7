"""What the machine offers: the device that networks train on, caches, and memory that was freed."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch

from actlab.errors import InputError


def accelerator(asked: str = "auto") -> str:
    """What Lightning's Trainer is told for `trainer.accelerator`.

    Losses and scores are summed in 64 bits. Where the device has none (Apple's GPUs), `auto` is the processor, and the
    device itself is refused (InputError).
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None or asked == "cpu" or has_float64(device):
        return asked
    if asked == "auto":
        return "cpu"
    raise InputError(
        f"trainer.accelerator is {asked}, but the device here ({device.type}) has no 64-bit floats, which scores need: "
        "take cpu"
    )


def is_accelerated(asked: str = "auto") -> bool:
    """Whether networks train elsewhere than on the processor."""
    return torch.accelerator.is_available() and accelerator(asked) != "cpu"


def has_float64(device: torch.device) -> bool:
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        return False
    return True


# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Freed blocks up to this size are kept for the next step, and so many bytes of them in each thread. Gradients and
# signals are smaller: the weights, gradients and moments of a stack take 32 MB at most, so its gradients 8.
LARGEST_KEPT = 32 << 20
KEPT = 512 << 20


def give_back_freed_memory() -> None:
    """Hand the kernel what the process has freed, where the C library is glibc.

    Between the texts of a table that has been read lie blocks that stay in use, and keep the pages around them.
    """
    _call_of_glibc("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Let the process keep what training steps free for the next ones, where the C library is glibc.

    By default glibc hands the pages of gradients and signals back to the kernel after each step, and gets them again,
    zeroed, with a page fault each: some twenty a network and step at batch 128.
    """
    _call_of_glibc("mallopt", M_TRIM_THRESHOLD, KEPT)
    # has to be said too: glibc no longer adapts it once a threshold is set
    _call_of_glibc("mallopt", M_MMAP_THRESHOLD, LARGEST_KEPT)


def _call_of_glibc(name: str, *arguments: int) -> None:
    call = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if call is not None:
        call(*arguments)


def largest_cache(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the last level of cache as Linux says it, 0 where nobody says."""
    units = {"K": 1 << 10, "M": 1 << 20}
    sizes = [path.read_text().strip() for path in folder.glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


@cache
def cache_of_a_core() -> int:
    """Bytes of the last level of cache over the cores that this process may use."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return largest_cache() // n_cores
