"""How fast refinement runs here: the textbook loop, each rewrite added in turn, and this machine's own peak."""

import copy
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from logitflow import device as devices
from logitflow.bench.ladder import GAMMA, STEP_SIZE, Pair, Rung, ladder, pairs, random_pair
from logitflow.bench.timing import (
    breakdown,
    convolutions_alone,
    interleaved,
    matmul_peak,
    peak_memory,
)
from logitflow.samplers import gradient_flow
from logitflow.target import LatentTarget, Scored


def bench(
    pairs: dict[str, Pair],
    *,
    batch_size: int = 16,
    growth: tuple[int, ...] = (1, 4, 64),
    repeats: int = 5,
    device: str = "auto",
    compile: bool = True,
    say: Callable[[str], None] = lambda line: None,
    **about: Any,
) -> dict[str, Any]:
    """Measure every rung of every pair.

    Args:
        pairs: generator and discriminator by name, on the CPU; they stay as they are.
        batch_size: latents moved together.
        growth: further batch sizes, at which the textbook loop and the best eager rungs are measured.
        repeats: timings of each; medians count, and they are taken in turn.
        device: "auto", "cpu" or "cuda".
        compile: whether to measure `torch.compile`, which takes a minute or two.
        say: called with each line of progress.
        about: what else the result should say, such as the command and the hardware.

    Returns:
        Plain numbers for a JSON file. Rates are sample-steps a second: samples moved by one step.

    Raises:
        ValueError: batch_size, growth or repeats is below 1, or the device is not there.
    """
    if min(batch_size, repeats, *growth) < 1:
        raise ValueError("batch sizes and repeats must be at least 1")
    where = devices.choose(device)
    peaks = {
        str(dtype).removeprefix("torch."): matmul_peak(where, dtype, repeats) / 1e9
        for dtype in (torch.float32, torch.bfloat16)
    }
    for form, peak in peaks.items():
        say(f"matrix products in {form}: {peak:.0f}·10⁹ multiply-adds a second")
    measured = {
        name: _measure(
            pair,
            device=where,
            batch_size=batch_size,
            growth=growth,
            repeats=repeats,
            compile=compile,
            peaks=peaks,
            say=partial(_say_row, say, name),
        )
        for name, pair in pairs.items()
    }
    settings = {"batch_size": batch_size, "repeats": repeats, "device": where.type}
    return {**about, **settings, "matmul_gmac_per_second": peaks, "pairs": measured}


def _measure(
    pair: Pair,
    *,
    device: torch.device,
    batch_size: int,
    growth: tuple[int, ...],
    repeats: int,
    compile: bool,
    peaks: dict[str, float],
    say: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    generator, critic = (copy.deepcopy(network).to(device) for network in pair)
    rng = torch.Generator(device).manual_seed(0)
    rungs = ladder((generator, critic), rng, compile)
    textbook, eager = rungs[0], {"float32": rungs[5], "bfloat16": rungs[6]}
    settings: Any = generator.settings

    def draw(n: int) -> Tensor:
        return torch.randn(n, settings["latent"], generator=rng, device=device)

    def medians(chosen: Sequence[Rung], z: Tensor) -> dict[str, float]:
        calls = {rung.name: partial(rung.step, z) for rung in chosen}
        times = interleaved(calls, device, repeats)
        return {name: statistics.median(values) for name, values in times.items()}

    z = draw(batch_size)
    exact = LatentTarget(generator, critic, None).logits_and_grad(z)
    spent = medians(rungs, z)
    alone = {
        form: convolutions_alone(
            partial(LatentTarget(*rung.pair, None).logits, z), rung.pair, repeats
        )
        for form, rung in eager.items()
    }
    rows: list[dict[str, Any]] = []
    for k, rung in enumerate(rungs):
        form = "float32" if k < 6 else "bfloat16"
        scored = LatentTarget(*rung.pair, None).logits_and_grad(z)
        row = {
            "name": rung.name,
            "format": form,
            "sample_steps_per_second": batch_size / spent[rung.name],
            "ratio": spent[textbook.name] / spent[rung.name],
            "share_of_convolution_peak": alone[form].seconds / spent[rung.name],
            "share_of_matmul_peak": alone[form].gmac / spent[rung.name] / peaks[form],
            "peak_memory_mb": peak_memory(partial(rung.step, z), device),
            "logit_error": float((scored.value - exact.value).abs().max()),
            "gradient_error": float((scored.grad - exact.grad).norm() / exact.grad.norm()),
        }
        rows.append(row)
        say(row)
    by_batch = {n: medians([textbook, *eager.values()], draw(n)) for n in growth}
    by_batch[batch_size] = {r.name: spent[r.name] for r in (textbook, *eager.values())}
    return {
        "networks": [_describe(network) for network in pair],
        "rungs": rows,
        "convolutions_alone": {
            form: {
                "milliseconds": 1e3 * value.seconds,
                "gmac": value.gmac,
                "share_of_matmul_peak": value.gmac / value.seconds / peaks[form],
            }
            for form, value in alone.items()
        },
        "parts": {
            rung.name: _parts(rung.pair, exact, z, device) for rung in (*eager.values(), *rungs[7:])
        },
        "growth": [
            {"batch_size": n, **{name: n / seconds for name, seconds in by_batch[n].items()}}
            for n in sorted(by_batch)
        ],
    }


def _parts(pair: Pair, scored: Scored, z: Tensor, device: torch.device) -> dict[str, float]:
    """Milliseconds of one step by kind of work; the sampler's own with a target that costs nothing."""
    target = LatentTarget(*pair, None)
    parts = breakdown(partial(target.logits_and_grad, z), device)
    target.logits_and_grad = lambda z: scored  # type: ignore[method-assign]
    sampler = gradient_flow(target, step_size=STEP_SIZE, gamma=GAMMA)
    rng = torch.Generator(device).manual_seed(0)
    own = interleaved(
        {"": lambda: sampler.step(sampler.init(z), rng)}, device, repeats=5, at_least=0.02
    )
    return {name: 1e3 * value for name, value in (parts | {"sampler": min(own[""])}).items()}


def _say_row(say: Callable[[str], None], name: str, row: dict[str, Any]) -> None:
    say(line(name, row))


def _describe(network: nn.Module) -> str:
    settings: Any = getattr(network, "settings", {})
    return f"{type(network).__name__}({settings.get('width', '')})"


def line(pair: str, row: dict[str, Any]) -> str:
    """One rung as a line of the printed table."""
    memory = row["peak_memory_mb"]
    return (
        f"{pair:6} {row['name']:24} {row['sample_steps_per_second']:9.1f} sample-steps/s {row['ratio']:6.2f}× "
        f"{row['share_of_convolution_peak']:5.0%} of the convolutions' peak "
        f"{'' if memory is None else f'{memory:7.0f} MB'}"
    )


__all__ = ["bench", "ladder", "line", "pairs", "random_pair"]
