"""Where to compute: on the GPU where there is one."""

import torch

DEVICES = ("auto", "cpu", "cuda")
"""The names that `choose` takes."""


def choose(name: str = "auto") -> torch.device:
    """The device of a name: "auto" is a CUDA GPU where there is one, else the CPU.

    Raises:
        ValueError: the name is unknown, or "cuda" where there is no CUDA GPU.
    """
    if name not in DEVICES:
        raise ValueError(f"unknown device {name!r}: choose {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("there is no CUDA GPU here: use the device cpu, or auto")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
