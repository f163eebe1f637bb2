"""The tables of models of CIFAR-10 without a discriminator, refined with and without a corrector."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logitflow import zoo
from logitflow.data import cifar10
from logitflow.data.images import from_bytes
from logitflow.inference import fast
from logitflow.metrics.images import Judge, evaluate_images, shipped_judge
from logitflow.models import ImageFlow
from logitflow.models.flow_images import Step
from logitflow.ratio import corrected
from logitflow.recipes import IMAGE_MODELS
from logitflow.recipes.beyond_images import along_flow
from logitflow.reproduce.common import Row, hardware, heading, summarise
from logitflow.reproduce.lab import CPU, Lab, box
from logitflow.reproduce.table import (
    Job,
    gather,
    measure,
    numbers,
    plan,
    recall,
    refuse_too_few,
)
from logitflow.run import seeded_generator
from logitflow.samplers import Sampler, gradient_flow, langevin
from logitflow.target import LatentTarget

LOGITS = ("corrected", "fitted", "uncorrected")
"""A GAN's logit with the model's corrector; one fitted between data and model; the GAN's alone."""
ALONG = "along the flow"
"""The logit that was fitted along a flow in pixels."""

# DGflow's η and γ, DDLS's ε. The authors' η is 0.1: a VAE's logit is flat and wants longer steps; a flow, whose
# latents are as many as an image's numbers, and the MMD-GAN, whose images are told with ease, shorter ones
SETTINGS = {"vae": (0.25, 0.01, 0.1), "flow": (0.05, 0.01, 0.05), "mmd-gan": (0.02, 0.01, 0.02)}
NUM_STEPS = 25
ALONG_STEPS = 100
BATCH_SIZE = 250


def beyond_image_rows(model: str) -> list[Row]:
    """The lines of a model's table, with the settings that the book reports."""
    step_size, gamma, epsilon = SETTINGS[model]

    def flow(target: LatentTarget) -> Sampler:
        return gradient_flow(target, divergence="kl", step_size=step_size, gamma=gamma)

    def chain(target: LatentTarget) -> Sampler:
        return langevin(target, step_size=epsilon)

    rows = [
        Row(method, logit, "latent", ((make, NUM_STEPS),))
        for logit in LOGITS
        for method, make in (("DGflow (KL)", flow), ("DDLS (ULA)", chain))
    ]
    return [*rows, Row("DGflow (KL)", ALONG, "data", ((along_flow, ALONG_STEPS),))]


def reproduce_beyond_images(
    *,
    num_samples: int = 10_000,
    num_seeds: int = 3,
    command: str = "",
    ledger: Path | None = None,
    judge: Judge | None = None,
    held_out: Tensor | None = None,
    say: Callable[[str], None] = lambda line: None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Run every row on each model of CIFAR-10 that the zoo has, in bfloat16.

    Args:
        num_samples: images a row and seed.
        num_seeds: seeds, counted from 0, of latents and noise.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.
        judge: who looks and compares; None for our CIFAR-10 classifier.
        held_out: real images in [−1, 1], for what real ones get; None for CIFAR-10's test images.
        say: is told which models are passed over.
        device: where to compute; another draws other numbers.

    Returns:
        A dictionary for JSON: command, hardware, seeds, and for each model a table: who judges; what real
        images get; each row with its settings and figures. A row's metric `fall` is the share of the
        base's Fréchet distance that is gone.

    Raises:
        ValueError: fewer than 1 seed or 4 images are asked for.
        FileNotFoundError, ConnectionError: there are no real images to set beside.
    """
    refuse_too_few(num_seeds, num_samples)
    if held_out is None:
        held_out = from_bytes(cifar10("test").pixels)
    tables = []
    for model in IMAGE_MODELS:
        name = f"cifar10-{model}"
        if name in zoo.names():
            lab = open_model_lab(name, judge=judge, held_out=held_out, device=device)
            tables.append(_table(model, lab, num_samples, num_seeds, ledger))
        else:
            say(f"the zoo has no {name}: passed over")
    return {
        "experiment": "beyond-images",
        "command": command,
        "num_samples": num_samples,
        "seeds": list(range(num_seeds)),
        "hardware": hardware(device),
        "tables": tables,
    }


def open_model_lab(
    name: str | Path,
    *,
    judge: Judge | None = None,
    held_out: Tensor,
    device: torch.device = CPU,
) -> Lab:
    """Load a model, made fast, with its logits."""
    pair = zoo.to_device(zoo.load(name), device)
    assert pair.fitted is not None
    alone: Any = pair.discriminator.logit  # of the GAN, without the corrector
    gan_logit, corrector = _quick(alone), _quick(pair.networks["corrector"])
    fitted = _quick(pair.fitted)
    together = corrected(gan_logit, corrector)
    logits = dict(zip(LOGITS, (together, fitted, gan_logit), strict=True))
    logits[ALONG] = _quick(pair.networks["along"])
    quick = pair._replace(generator=_quick(pair.generator), discriminator=together)
    judge = judge or shipped_judge()
    pixels = box(-1.0, 1.0, held_out.shape[1:], device)
    return Lab(quick, logits, held_out.to(device), judge, {}, pixels, BATCH_SIZE, device)


def _quick(network: nn.Module) -> Any:
    """In bfloat16; of a flow its couplings' networks alone, since its sums need more digits."""
    if not isinstance(network, ImageFlow):
        return fast(network, dtype=torch.bfloat16)
    network = copy.deepcopy(network).requires_grad_(False)
    for step in network.modules():
        if isinstance(step, Step):
            step.coupling = fast(  # type: ignore[assignment]
                step.coupling, dtype=torch.bfloat16
            )
    return network


def _table(
    model: str, lab: Lab, num_samples: int, num_seeds: int, ledger: Path | None
) -> dict[str, Any]:
    name = f"cifar10-{model}"
    jobs = plan(
        beyond_image_rows(model),
        [],
        num_samples=num_samples,
        num_seeds=num_seeds,
        curve_samples=0,
    )
    lines, _ = gather(jobs, partial(_do, lab, ledger=ledger), desc=f"reproduce {name}")
    base = lines[0].runs
    for line in lines:
        for before, run in zip(base, line.runs, strict=True):
            run["fall"] = 1 - run["frechet_distance"] / before["frechet_distance"]
    orders = (
        torch.randperm(len(lab.held_out), generator=seeded_generator(seed, 3))[:num_samples]
        for seed in range(num_seeds)
    )
    real = [evaluate_images(lab.held_out[order], lab.judge) for order in orders]
    return {
        "experiment": name,
        "data": "cifar10",
        "model": model,
        "pair": {"name": name, "seed": lab.pair.card["seed"], "gan": lab.pair.card["gan"]["name"]},
        "num_samples": num_samples,
        "seeds": list(range(num_seeds)),
        "precision": "bfloat16",
        "extractor": lab.judge.extractor.name,
        "reference": lab.judge.reference.name,
        "real": summarise(numbers(real)),
        "rows": [{**heading(line.row), "metrics": summarise(numbers(line.runs))} for line in lines],
    }


def _do(lab: Lab, job: Job, ledger: Path | None) -> list[dict[str, Any]]:
    def work(lab: Lab, job: Job) -> list[dict[str, Any]]:
        return measure(lab, job, evaluate_images, evaluate_images)

    return recall(lab, job, ledger, work)
