"""The rungs that a benchmark climbs: from the textbook loop to every rewrite at once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from logitflow import zoo
from logitflow.inference import (
    bake_parametrizations,
    compiled,
    fold_batch_norms,
    freeze,
    merge_resampling,
    to_channels_last,
    to_dtype,
)
from logitflow.recipes.images import PRESETS
from logitflow.samplers import gradient_flow
from logitflow.samplers.core import randn_like
from logitflow.target import LatentTarget

PAIR = "cifar10-sn-resnet-small"
"""The shipped pair that the ladder is climbed with."""
STEP_SIZE, GAMMA = 0.01, 0.01  # no matter for speed

Pair = tuple[nn.Module, nn.Module]


class Rung(NamedTuple):
    """One more rewrite than the rung before."""

    name: str
    pair: Pair
    step: Callable[[Tensor], Tensor]  # one DGflow step: latents to latents


def pairs() -> dict[str, Pair]:
    """The pair of the papers' size with random weights, and the shipped one (random where it is not there)."""
    small = random_pair("small")
    if PAIR in zoo.names():
        shipped = zoo.load(PAIR)
        small = shipped.generator, shipped.discriminator
    return {"paper": random_pair("paper"), "small": small}


def random_pair(preset: str, seed: int = 0) -> Pair:
    """A preset's networks with random weights and batch norm statistics."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        generator, critic = PRESETS[preset].networks()
    rng = torch.Generator().manual_seed(seed)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.1, generator=rng)
            layer.running_var.uniform_(0.5, 1.5, generator=rng)
    return generator.eval(), critic.eval()


def textbook_step(pair: Pair, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    """DGflow as one would write it down: `backward` on the logits, which also reaches every parameter."""
    generator, critic = pair

    def step(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        generator.zero_grad()
        critic.zero_grad()
        critic(generator(z)).sum().backward()
        assert z.grad is not None
        noise = math.sqrt(2 * STEP_SIZE * GAMMA) * randn_like(z, rng)
        return z.detach() + STEP_SIZE * z.grad + noise

    return step


def toolkit_step(pair: Pair, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    """One step of `gradient_flow`."""
    sampler = gradient_flow(LatentTarget(*pair, None), step_size=STEP_SIZE, gamma=GAMMA)
    return lambda z: sampler.step(sampler.init(z), rng)[0].z


def ladder(pair: Pair, rng: torch.Generator, compile: bool = True) -> list[Rung]:
    """The rungs from the textbook loop to all rewrites at once."""
    rungs = [Rung("textbook loop", pair, textbook_step(pair, rng))]

    def add(name: str, rewrite: Callable[[nn.Module], nn.Module], step: Any = toolkit_step) -> None:
        generator, critic = rungs[-1].pair
        pair = rewrite(generator), rewrite(critic)
        rungs.append(Rung(name, pair, step(pair, rng)))

    add("spectral norm baked", bake_parametrizations, textbook_step)
    add("no parameter gradients", freeze)
    add("batch norm folded", fold_batch_norms)
    add("resampling merged", merge_resampling)
    add("channels-last", to_channels_last)
    add("bfloat16", lambda network: to_dtype(network, torch.bfloat16))
    if compile:
        add("compiled", compiled)
    return rungs
