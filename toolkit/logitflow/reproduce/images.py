"""The CIFAR-10 table: every method on a trained pair, and quality against gradient evaluations."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitflow import priors
from logitflow.ledger import remembered
from logitflow.metrics import features as measures
from logitflow.metrics.images import Judge, evaluate_images, look
from logitflow.progress import progress
from logitflow.reproduce.common import Row, hardware, heading, summarise
from logitflow.reproduce.lab import Lab, follow, generate, image_target, open_lab
from logitflow.reproduce.settings import PLAIN, PLAIN_STEPS, curve_rows, image_rows
from logitflow.run import seeded_generator
from logitflow.samplers import rejection_sample
from logitflow.target import LatentTarget

PAIR = "cifar10-sn-resnet-small"
"""The shipped pair that the table is about."""
STEPS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 25, 40, 60, 100)
"""Where the curves are measured."""
# the authors' for images; plain rejection would accept hardly one in a thousand
DRS_PERCENTILE = 80.0


class Job(NamedTuple):
    """A piece of the table that is done whole or not at all."""

    row: Row | None  # None is the base, which moves nothing
    seed: int
    num_samples: int
    at: tuple[int, ...] = ()  # a curve's steps to look at; none: at the end, with every figure


def jobs(num_samples: int, num_seeds: int, curve_samples: int) -> list[Job]:
    """All that a table is made of: the base, the rows, then the curves. Processes may share them out."""

    def seeds(row: Row) -> range:
        return range(num_seeds if row.most_seeds is None else min(num_seeds, row.most_seeds))

    table = [Job(None, seed, num_samples) for seed in range(num_seeds)]
    table += [Job(row, seed, num_samples) for row in image_rows() for seed in seeds(row)]
    for row in curve_rows():
        length = sum(steps for _, steps in row.stages)
        at = (*(k for k in STEPS if k < length), length)
        table += [Job(row, seed, curve_samples, at) for seed in seeds(row)]
    return table


def do(lab: Lab, job: Job, ledger: Path | None = None) -> list[dict[str, Any]]:
    """A job's figures, at each of its steps; those of a finished job are found in the ledger."""
    what = [heading(job.row), *job[1:], lab.batch_size, lab.pair.card["networks"]]
    return remembered(ledger, json.dumps(what), partial(_do, lab, job))


def _do(lab: Lab, job: Job) -> list[dict[str, Any]]:
    row, seed, n, at = job
    z = priors.sample(lab.pair.prior, n, seeded_generator(seed, 1))
    clock = time.perf_counter()
    if row is None or row.space == "data":
        base = LatentTarget(lab.pair.generator, lab.pair.discriminator, lab.pair.prior)
        x = generate(base, z, lab.batch_size)
    if row is None:
        seconds = time.perf_counter() - clock
        return [{"steps": 0, **_cost(0, 0, seconds, n), **evaluate_images(x, lab.judge)}]
    target, counted = image_target(lab, row)
    if not row.stages:
        rng = seeded_generator(seed, 2)
        x = rejection_sample(
            target, num_samples=n, generator=rng, percentile=DRS_PERCENTILE, batch_size=250
        ).x
        cost = _cost(0, counted.forwards, time.perf_counter() - clock, n)
        return [{"steps": 0, **cost, **evaluate_images(x, lab.judge)}]
    start = x if row.space == "data" else z
    points = []
    for step, moved, spent in follow(target, counted, row, start, at, seed, lab.batch_size):
        x = generate(target, moved, lab.batch_size)
        figures = _few_figures(x, lab.judge) if at else evaluate_images(x, lab.judge)
        gradients, forwards, seconds = spent.tolist()
        points.append({"steps": step, **_cost(gradients, forwards, seconds, n), **figures})
    return points


def _cost(gradients: float, forwards: float, seconds: float, n: int) -> dict[str, float]:
    return {
        "gradient_evaluations": gradients / n,
        "forward_evaluations": forwards / n,
        "seconds": seconds,
    }


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
    curve_samples: int = 1000,
    command: str = "",
    ledger: Path | None = None,
    judge: Judge | None = None,
    held_out: Tensor | None = None,
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

    Returns:
        A dictionary for JSON: command, hardware, who judges; what real images get; each row with its settings,
        its seeds, each figure's mean and standard error, and its classes' shares; each curve with its
        points; and the cheapest way to the plain setting's quality.

    Raises:
        ValueError: fewer than 1 seed or 4 images are asked for.
        FileNotFoundError, ConnectionError: there is no such pair, or no data to calibrate with.
    """
    if num_seeds < 1 or num_samples < 4:
        raise ValueError("a table needs at least 1 seed and 4 images")
    lab = open_lab(pair, judge=judge, held_out=held_out)
    few = min(curve_samples, num_samples)
    table: list[tuple[Row | None, list[int], list[dict[str, Any]]]] = []
    curves = []
    for job in progress(jobs(num_samples, num_seeds, few), desc="reproduce cifar10", unit="run"):
        points = do(lab, job, ledger)
        if job.at:
            curves.append({**heading(job.row), "seed": job.seed, "points": points})
        elif table and table[-1][0] is job.row:
            table[-1][1].append(job.seed)
            table[-1][2].extend(points)
        else:
            table.append((job.row, [job.seed], points))
    real = _real(lab, num_samples, num_seeds, evaluate_images)
    return {
        "experiment": "cifar10",
        "command": command,
        "pair": {"name": str(pair), "seed": lab.pair.card.get("seed")},
        "num_samples": num_samples,
        "curve_samples": few,
        "precision": "bfloat16",
        "hardware": hardware(),
        "extractor": lab.judge.extractor.name,
        "reference": lab.judge.reference.name,
        "calibration": lab.calibration,
        "real": _summary(real),
        "real_of_curves": _summary(_real(lab, few, num_seeds, _few_figures))["metrics"],
        "rows": [{**heading(row), "seeds": seeds, **_summary(runs)} for row, seeds, runs in table],
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
    numbers = [{k: v for k, v in run.items() if isinstance(v, int | float)} for run in runs]
    shares = [
        {name: count / run["n"] for name, count in run.get("class_counts", {}).items()}
        for run in runs
    ]
    return {"metrics": summarise(numbers), "classes": summarise(shares)}


def cheapest(curves: list[dict[str, Any]]) -> dict[str, Any]:
    """The fewest gradient evaluations that reach the plain curve's quality after `PLAIN_STEPS` steps.

    Reached is a quality with no larger Fréchet distance and no smaller inception score.
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
    return {"goal": goal, "reached": min(reached, key=lambda point: point["gradient_evaluations"])}
