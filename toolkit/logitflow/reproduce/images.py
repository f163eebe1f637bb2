"""The CIFAR-10 table: every method on a trained pair, and quality against gradient evaluations."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitflow.metrics import features as measures
from logitflow.metrics.images import Judge, evaluate_images, look
from logitflow.reproduce.common import hardware, heading, summarise
from logitflow.reproduce.lab import CPU, Lab, open_lab, possible
from logitflow.reproduce.settings import PLAIN, PLAIN_STEPS, curve_rows, image_rows
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

PAIR = "cifar10-sn-resnet-labels"
"""The shipped pair that the table is about."""


def jobs(lab: Lab, num_samples: int, num_seeds: int, curve_samples: int) -> list[Job]:
    """All that the table is made of, as far as the pair has the logits. Processes may share them out."""
    return plan(
        possible(lab, image_rows()),
        possible(lab, curve_rows()),
        num_samples=num_samples,
        num_seeds=num_seeds,
        curve_samples=curve_samples,
    )


def do(lab: Lab, job: Job, ledger: Path | None = None) -> list[dict[str, Any]]:
    """A job's figures, at each of its steps; those of a finished job are found in the ledger."""
    return recall(lab, job, ledger, _do)


def _do(lab: Lab, job: Job) -> list[dict[str, Any]]:
    return measure(lab, job, evaluate_images, _few_figures)


def _few_figures(x: Tensor, judge: Judge) -> dict[str, Any]:
    """What a curve shows; the other figures cost more than a step."""
    features, logits = look(x, judge.extractor)
    if logits is None:
        raise ValueError(
            f"the curve needs class probabilities, and {judge.extractor.name} gives none: use a classifier"
        )
    return {
        "n": len(x),
        "frechet_distance": measures.frechet_distance(features, judge.reference.moments),
        "inception_score": measures.inception_score(logits),
    }


def reproduce_images(
    pair: str | Path = PAIR,
    *,
    num_samples: int = 10_000,
    num_seeds: int = 3,
    curve_samples: int = 500,
    command: str = "",
    ledger: Path | None = None,
    judge: Judge | None = None,
    held_out: Tensor | None = None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Run every row and every curve on a trained pair.

    Args:
        pair: a name of the zoo or a folder.
        num_samples: images a row and seed; 50,000 in the papers.
        num_seeds: seeds, counted from 0, of latents and noise; a row may name fewer, and the result says so.
        curve_samples: images a curve, where they are fewer than `num_samples`.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.
        judge: who looks and compares; None for our CIFAR-10 classifier.
        held_out: real images in [−1, 1]; None for CIFAR-10's test images.
        device: where to compute; another draws other numbers.

    Returns:
        A dictionary for JSON: command, hardware, who judges; what real images get; each row with its settings,
        its seeds, each figure's mean and standard error, and its classes' shares; each curve with its
        points; and the cheapest way to the plain setting's quality.

    Raises:
        ValueError: fewer than 1 seed or 4 images are asked for.
        FileNotFoundError, ConnectionError: there is no such pair, or no data to calibrate with.
    """
    refuse_too_few(num_seeds, num_samples)
    lab = open_lab(pair, judge=judge, held_out=held_out, device=device)
    few = min(curve_samples, num_samples)
    lines, curves = gather(
        jobs(lab, num_samples, num_seeds, few),
        partial(do, lab, ledger=ledger),
        desc="reproduce cifar10",
    )
    real = _real(lab, num_samples, num_seeds, evaluate_images)
    return {
        "experiment": "cifar10",
        "command": command,
        "pair": {"name": str(pair), "seed": lab.pair.card.get("seed")},
        "num_samples": num_samples,
        "curve_samples": few,
        "precision": "bfloat16",
        "hardware": hardware(device),
        "extractor": lab.judge.extractor.name,
        "reference": lab.judge.reference.name,
        "calibration": lab.calibration,
        "real": _summary(real),
        "real_of_curves": _summary(_real(lab, few, num_seeds, _few_figures))["metrics"],
        "rows": [{**heading(row), "seeds": seeds, **_summary(runs)} for row, seeds, runs in lines],
        "curves": curves,
        "cheapest": cheapest(curves),
    }


def _real(
    lab: Lab, n: int, num_seeds: int, figures: Callable[[Tensor, Judge], dict[str, Any]]
) -> list[dict[str, Any]]:
    """What held-out real images get in the generator's place."""
    orders = (
        torch.randperm(len(lab.held_out), generator=seeded_generator(seed, 3))
        for seed in range(num_seeds)
    )
    return [figures(lab.held_out[order[:n]], lab.judge) for order in orders]


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [
        {name: count / run["n"] for name, count in run.get("class_counts", {}).items()}
        for run in runs
    ]
    return {"metrics": summarise(numbers(runs)), "classes": summarise(shares)}


def cheapest(curves: list[dict[str, Any]]) -> dict[str, Any]:
    """The least work that reaches the plain curve's quality after `PLAIN_STEPS` steps.

    Reached is a quality with no larger Fréchet distance and no smaller inception score. Work is counted in
    gradient evaluations, of which a forward evaluation without a gradient is half.
    """
    plain = next(curve for curve in curves if curve["method"] == PLAIN)
    goal = next(point for point in plain["points"] if point["steps"] == PLAIN_STEPS)
    reached = [
        {"method": curve["method"], "settings": curve["settings"], **point}
        for curve in curves
        for point in curve["points"]
        if point["frechet_distance"] <= goal["frechet_distance"]
        and point["inception_score"] >= goal["inception_score"]
    ]
    return {"goal": goal, "reached": min(reached, key=lambda point: point["work"])}
