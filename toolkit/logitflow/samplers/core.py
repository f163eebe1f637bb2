"""What every sampler is made of: a pair of pure functions, and the diagnostics of one step."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from logitflow.priors import Box


class State(Protocol):
    """Where a batch of points stands; every sampler's state has at least z, (N, *latent_shape)."""

    @property
    def z(self) -> Tensor:
        """The points, (N, *latent_shape)."""
        ...


class Info(NamedTuple):
    """Diagnostics of one step, as scalar tensors."""

    acceptance_rate: Tensor  # mean probability of accepting, or 1 where nothing is rejected
    step_norm: Tensor  # mean distance that a point moved
    num_nonfinite: Tensor  # points that kept their old state because the new one was not finite


class Samples(NamedTuple):
    """Refined samples, on the CPU when they come from `refine`."""

    x: Tensor  # (N, *sample_shape)
    z: Tensor  # (N, *latent_shape)
    info: Info  # averaged over steps and batches; num_nonfinite is their sum


class Sampler(NamedTuple):
    """A sampler: `init(z) → state` and `step(state, generator) → (state, info)`, both pure.

    `description` says which sampler with which settings; `refine` checks it before it continues a run.
    """

    init: Callable[[Tensor], Any]
    step: Callable[[Any, torch.Generator], tuple[Any, Info]]
    description: str


S = TypeVar("S", bound=tuple[Any, ...])


def select(mask: Tensor, new: S, old: S) -> S:
    """Per point, the new state's fields where mask (N,) is true and the old state's elsewhere.

    Fields without a batch axis (a step counter) are the new state's.
    """
    fields = (
        torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) if a.ndim else a
        for a, b in zip(new, old, strict=True)
    )
    return type(new)(*fields)


def finite(*fields: Tensor) -> Tensor:
    """Which points have only finite values in all fields, each (N, …): a mask (N,)."""
    masks = [torch.isfinite(field).reshape(len(field), -1).all(1) for field in fields]
    return torch.stack(masks).all(0)


def describe(old: Tensor, new: Tensor, ok: Tensor, acceptance: Tensor | None = None) -> Info:
    """The Info of a step from latents `old` to `new`; `acceptance` (N,) are probabilities."""
    moved = (new - old).flatten(1).norm(dim=1)
    rate = torch.ones_like(moved) if acceptance is None else acceptance
    return Info(rate.mean(), moved.mean(), (~ok).sum())


def randn_like(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of z's shape, device and dtype from `generator`."""
    return torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)


def project(z: Tensor, bounds: Box | None) -> Tensor:
    """The nearest point of the box, coordinate by coordinate."""
    if bounds is None:
        return z
    return torch.minimum(torch.maximum(z, bounds.low.to(z)), bounds.high.to(z))


def reflect(z: Tensor, bounds: Box | None) -> tuple[Tensor, Tensor]:
    """Fold z into the box as mirrors on its walls would; also the sign ±1 of each coordinate's image."""
    if bounds is None:
        return z, torch.ones_like(z)
    low, high = bounds.low.to(z), bounds.high.to(z)
    width = high - low
    phase = torch.remainder(z - low, 2 * width)
    mirrored = phase > width
    folded = low + torch.where(mirrored, 2 * width - phase, phase)
    return project(folded, bounds), torch.where(mirrored, -1.0, 1.0).to(z)


def check_positive(name: str, value: float, *, zero_allowed: bool = False) -> None:
    """Refuse a setting that is not a positive finite number.

    Raises:
        ValueError: as said.
        TypeError: it is no number at all.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        least = "zero or a positive" if zero_allowed else "a positive"
        raise ValueError(f"{name} must be {least} finite number, not {value}")
