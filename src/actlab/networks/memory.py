"""What the C library does with memory that a training step gives back."""

import ctypes
import sys

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Gradients and signals of a step are smaller (a stack of 32 MB has gradients of 8); larger blocks go back at once.
LARGEST_KEPT = 32 << 20
KEPT = 512 << 20


def give_back_freed_memory() -> None:
    """Hand the kernel what the process has freed, where the C library is glibc.

    Between the texts of a table that has been read lie blocks that stay in use, and keep the pages around them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def keep_freed_memory() -> None:
    """Let the process keep freed memory of up to `KEPT` bytes a thread, where the C library is glibc.

    A step of a stack frees all its gradients and signals. Left to itself, glibc hands these pages to the kernel and
    takes them again, zeroed, one page fault each, a moment later: some twenty a network and step at batch 128.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        # has to be said too: glibc no longer adapts it once a threshold is set
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
