"""What the rows of a long table share: the networks as they run, the logits, the judge."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Uniform

from logitflow import priors, zoo
from logitflow.data import cifar10
from logitflow.data.images import from_bytes
from logitflow.inference import fast
from logitflow.metrics.images import Judge, shipped_judge
from logitflow.progress import progress
from logitflow.ratio import calibrate, names_classes, stratified, z_statistic
from logitflow.reproduce.common import Counted, Row
from logitflow.run import run, seeded_generator
from logitflow.samplers import Sampler
from logitflow.target import LatentTarget, Network

CPU = torch.device("cpu")


class Lab(NamedTuple):
    """What the rows of a table share."""

    pair: zoo.Pair  # its networks as they run
    logits: dict[str, Network]
    held_out: Tensor  # real samples that no network was trained on, (M, *sample_shape)
    judge: Any  # who measures: a `Judge` of images, a `TextReference`
    calibration: dict[str, float]  # how far the discriminator's logit is from a log ratio
    box: Uniform  # that data lie in, of a sample's shape: onto it the flow in data space projects
    batch_size: int = 250
    device: torch.device = CPU  # where the networks are and the points move


def open_lab(
    pair: str | Path,
    *,
    judge: Judge | None = None,
    held_out: Tensor | None = None,
    device: torch.device = CPU,
) -> Lab:
    """Load a pair of images, made fast, with its logits.

    Args:
        pair: a name of the zoo or a folder.
        judge: who looks and compares; None for our CIFAR-10 classifier.
        held_out: real images in [−1, 1]; None for CIFAR-10's test images.
        device: where to compute.
    """
    loaded = zoo.to_device(zoo.load(pair), device)
    quick = fast_pair(loaded)
    real = from_bytes(cifar10("test").pixels) if held_out is None else held_out
    real = real.to(device)
    calibration, facts = calibrated(*scores(quick.discriminator, quick, real))
    logits: dict[str, Network] = {
        "discriminator": quick.discriminator,
        "calibrated": lambda x: calibration(quick.discriminator(x)),
    }
    if quick.fitted is not None:
        logits["fitted"] = quick.fitted
    if names_classes(loaded.discriminator):
        for name, change in (("stratified", None), ("calibrated, stratified", calibration)):
            by_class = stratified(loaded.discriminator, change)
            logits[name] = fast(by_class, dtype=torch.bfloat16)
    pixels = box(-1.0, 1.0, real.shape[1:], device)
    return Lab(quick, logits, real, judge or shipped_judge(), facts, pixels, device=device)


def box(low: float, high: float, shape: tuple[int, ...], device: torch.device) -> Uniform:
    """The uniform law of samples whose entries lie between two numbers."""
    one = torch.ones(shape, device=device)
    return Uniform(low * one, high * one)


def scores(
    logit: Network, pair: zoo.Pair, real: Tensor, as_data: Network = lambda x: x
) -> tuple[Tensor, Tensor]:
    """A logit of held-out samples and of as many generated ones, (M,) each.

    Args:
        logit: the discriminator or another.
        pair: whose generator draws.
        real: held-out samples, (M, *sample_shape), on the networks' device.
        as_data: what the generator's output is made into before it is scored beside data.
    """
    z = priors.sample(pair.prior, len(real), seeded_generator(0, 100, real.device))
    with torch.no_grad():
        fake = (as_data(pair.generator(part)) for part in z.split(250))
        on_fake = torch.cat([logit(part) for part in fake])
        on_real = torch.cat([logit(part) for part in real.split(250)])
    return on_real, on_fake


def calibrated(on_real: Tensor, on_fake: Tensor) -> tuple[Network, dict[str, float]]:
    """Calibrate a logit on half of its scores: MH-GAN and DRS need a ratio.

    Returns:
        The map from the logit to a log ratio, and what the other half says of both.
    """
    half = len(on_real) // 2
    calibration = calibrate(on_real[:half], on_fake[:half])
    shift, slope = calibration(torch.tensor([0.0, 1.0])).diff(prepend=torch.zeros(1)).tolist()
    held = on_real[half : 2 * half], on_fake[half : 2 * half]
    return calibration, {
        "shift": shift,
        "slope": slope,
        "z_discriminator": z_statistic(*held).statistic,
        "z_calibrated": z_statistic(*(calibration(d) for d in held)).statistic,
        "mean_ratio": float(calibration(held[1]).double().exp().mean()),
    }


def fast_pair(pair: zoo.Pair) -> zoo.Pair:
    """A pair's networks as they run here: rewritten to be fast, in bfloat16."""

    def quick(network: nn.Module) -> Any:
        return fast(network, dtype=torch.bfloat16)

    return pair._replace(
        generator=quick(pair.generator),
        discriminator=quick(pair.discriminator),
        fitted=None if pair.fitted is None else quick(pair.fitted),
    )


def possible(lab: Lab, rows: list[Row]) -> list[Row]:
    """Those rows whose logit the lab's pair has."""
    return [row for row in rows if row.logit in lab.logits]


def row_target(lab: Lab, row: Row) -> tuple[LatentTarget, Counted]:
    """The density that a row's points climb, and its logit's counter.

    In data space that is the logit alone, in the lab's box.
    """
    counted = Counted(lab.logits[row.logit])
    if row.space == "latent":
        return LatentTarget(lab.pair.generator, counted, lab.pair.prior), counted
    return LatentTarget(lambda x: x, counted, lab.box), counted


def generate(target: LatentTarget, z: Tensor, batch_size: int) -> Tensor:
    """The samples of many latents, batch by batch."""
    return torch.cat([target.generate(part) for part in z.split(batch_size)])


def follow(
    target: LatentTarget,
    counted: Counted,
    row: Row,
    z: Tensor,
    at: tuple[int, ...],
    seed: int,
    batch_size: int,
) -> list[tuple[int, Tensor, Tensor]]:
    """Points after each number of steps in `at` (none: at the end), with what they have cost by then."""

    def meter() -> Tensor:
        now = [counted.gradients, counted.forwards, time.perf_counter()]
        return torch.tensor(now, dtype=torch.float64)

    begin = meter()
    samplers = [(make(target), num_steps) for make, num_steps in row.stages]
    setup = meter() - begin  # such as a preconditioner's pilot
    at = at or (sum(num_steps for _, num_steps in samplers),)
    batches = []
    for b, part in enumerate(progress(z.split(batch_size), desc=row.method, unit="batch")):
        rng = seeded_generator(seed, 1000 + b, z.device)
        batches.append(_follow_batch(samplers, part, rng, meter))
        batches[-1] = {k: batches[-1][k] for k in at}
    return [
        (
            k,
            torch.cat([batch[k][0] for batch in batches]),
            torch.stack([batch[k][1] for batch in batches]).sum(0) + setup,
        )
        for k in at
    ]


def _follow_batch(
    samplers: list[tuple[Sampler, int]],
    z: Tensor,
    generator: torch.Generator,
    meter: Callable[[], Tensor],
) -> dict[int, tuple[Tensor, Tensor]]:
    begin, done = meter(), 0
    seen = {0: (z, begin - begin)}

    def watch(k: int, state: Any, info: Any) -> None:
        seen[done + k] = (state.z, meter() - begin)

    for sampler, num_steps in samplers:
        z = run(sampler, z, num_steps=num_steps, generator=generator, callback=watch).z
        done += num_steps
    return seen
