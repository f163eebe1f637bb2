"""Stopwatches: seconds a call, the memory it needs, the machine's peak, and where the time goes."""

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Call = Callable[[], Any]

_PARTS = (
    ("convolutions", ("conv", "mm", "linear", "deconv", "gemm")),
    ("copies", ("copy", "_to_copy", "contiguous", "clone", "to", "cat", "reorder", "memcpy")),
)


class Convolutions(NamedTuple):
    """What a network's convolutions and dense layers cost by themselves, input gradients included."""

    seconds: float
    gmac: float  # 10⁹ multiply-adds of one forward and input-gradient pass


def seconds(call: Call, device: torch.device, at_least: float = 0.2) -> float:
    """Seconds a call takes, averaged over as many calls as fill `at_least` seconds."""
    _wait(device)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < at_least:
        call()
        _wait(device)
        calls += 1
    return (time.perf_counter() - start) / calls


def interleaved(
    calls: Mapping[str, Call], device: torch.device, repeats: int, at_least: float = 0.2
) -> dict[str, list[float]]:
    """Each call's seconds, `repeats` times, all calls in turn, so that a busy machine slows them alike."""
    for call in calls.values():
        call()  # the first is slower: memory, caches, compilers
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, device, at_least))
    return times


def peak_memory(call: Call, device: torch.device) -> float | None:
    """Megabytes (10⁶ bytes) that a call needs at its peak beyond what was there; None where none can tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # so that what earlier calls left behind is not reused and missed
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is forgotten
    except OSError:
        return None
    resting = _status("VmRSS")
    call()
    return max(0.0, _status("VmHWM") - resting)


def _status(name: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return float(line.split()[1]) * 1024 / 1e6


def matmul_peak(device: torch.device, dtype: torch.dtype, repeats: int, size: int = 2048) -> float:
    """Multiply-adds a second in a product of large square matrices: the most that this machine does."""
    rng = torch.Generator(device).manual_seed(0)
    a = torch.randn(size, size, generator=rng, device=device).to(dtype)
    times = interleaved({"matmul": lambda: a @ a}, device, repeats, at_least=0.1)["matmul"]
    return size**3 / min(times)


def convolutions_alone(run: Call, networks: Sequence[nn.Module], repeats: int) -> Convolutions:
    """Time each convolution and dense layer that `run` calls by itself, at the shapes at which it is called.

    Args:
        run: calls the networks once.
        networks: their layers are looked at; parameters need no gradient.
        repeats: timings of each layer, of which the median counts.
    """
    seen: list[tuple[nn.Module, Tensor]] = []
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = {m for network in networks for m in network.modules() if isinstance(m, kinds)}
    hooks = [
        layer.register_forward_hook(lambda layer, x, y: seen.append((layer, x[0].detach())))
        for layer in layers
    ]
    run()
    for hook in hooks:
        hook.remove()
    total, count = 0.0, 0
    for layer, x in seen:
        x.requires_grad_()
        y = layer(x).detach()
        both_ways = partial(_forward_and_back, layer, x, torch.ones_like(y))
        times = interleaved({"layer": both_ways}, x.device, repeats, at_least=0.02)["layer"]
        total += statistics.median(times)
        count += 2 * _multiplications(layer, x, y)
    return Convolutions(total, count / 1e9)


def _forward_and_back(layer: nn.Module, x: Tensor, ones: Tensor) -> None:
    torch.autograd.grad(layer(x), x, ones)


def _multiplications(layer: Any, x: Tensor, y: Tensor) -> int:
    small = x if isinstance(layer, nn.ConvTranspose2d) else y  # where each kernel is placed
    places = small[:, 0].numel() if small.ndim == 4 else len(small)
    return places * layer.weight.numel()


def breakdown(call: Call, device: torch.device, calls: int = 3) -> dict[str, float]:
    """Seconds a call spends in convolutions (and matrix products), in copies and casts, and in all else.

    By torch.profiler, as shares of the profiled time, applied to the unprofiled one.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    call()
    wall = seconds(call, device)
    with torch.profiler.profile(activities=activities) as profiler:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        _wait(device)
        profiled = time.perf_counter() - start
    found = {"convolutions": 0.0, "copies": 0.0, "elementwise": 0.0}
    for event in profiler.key_averages():
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found[_part(event.key)] += spent / 1e6 / profiled * wall
    return {**found, "between operations": max(0.0, wall - sum(found.values()))}


def _part(key: str) -> str:
    name = key.removeprefix("aten::").lower()
    for part, words in _PARTS:
        if any(name == word if word == "to" else word in name for word in words):
            return part
    return "elementwise"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
