"""Where a population trains."""

import torch

from actlab.errors import InputError


def accelerator(asked: str = "auto") -> str:
    """What Lightning's Trainer is told for `trainer.accelerator`.

    Losses and scores are summed in 64 bits, which some devices lack (Apple's GPUs): left the choice, it is the
    processor there.

    Raises:
        InputError: such a device is asked for.
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
