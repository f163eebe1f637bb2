"""The CIFAR-10 table: every method on a trained pair, and quality against gradient evaluations."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitflow import priors
from logitflow.ledger import remembered
from logitflow.metrics.images import evaluate_images
from logitflow.progress import progress
from logitflow.reproduce.common import Counted, Row, hardware, heading, summarise
from logitflow.reproduce.image_rows import PLAIN, PLAIN_STEPS, curve_rows, image_rows
from logitflow.reproduce.lab import Evaluate, Lab, image_target, open_lab
from logitflow.run import run, seeded_generator
from logitflow.samplers import Sampler, rejection_sample
from logitflow.target import LatentTarget

Job = tuple[Row | None, int, tuple[int, ...]]
"""A row (None is the base), its seed, and after how many steps to look; no number: at the end."""

STEPS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 25, 40, 60, 100)
"""Where the curves are measured."""
DRS_PERCENTILE = (
    80.0  # the authors' for images; plain rejection would accept hardly one in a thousand
)


def jobs(num_seeds: int) -> list[Job]:
    """All that a table is made of: the base and each row, then the curves; processes may share them out."""
    table: list[Job] = [(None, seed, ()) for seed in range(num_seeds)]
    for row in image_rows():
        table += [(row, seed, ()) for seed in _seeds(row, num_seeds)]
    for row in curve_rows():
        length = sum(steps for _, steps in row.stages)
        at = tuple(sorted({k for k in STEPS if k < length} | {length}))
        table += [(row, seed, at) for seed in _seeds(row, num_seeds)]
    return table


def _seeds(row: Row | None, num_seeds: int) -> range:
    most = None if row is None else row.most_seeds
    return range(num_seeds if most is None else min(num_seeds, most))


def do(lab: Lab, job: Job, ledger: Path | None = None) -> list[dict[str, Any]]:
    """A job's figures, after each number of steps that it names; a finished one is found in the ledger."""
    row, seed, at = job
    key = json.dumps(
        [heading(row), seed, at, lab.num_samples, lab.batch_size, lab.pair.card["networks"]]
    )
    return remembered(ledger, key, partial(_do, lab, job))


def _do(lab: Lab, job: Job) -> list[dict[str, Any]]:
    row, seed, at = job
    z = priors.sample(lab.pair.prior, lab.num_samples, seeded_generator(seed, 1))
    if row is None:
        base = LatentTarget(lab.pair.generator, lab.pair.discriminator, lab.pair.prior)
        clock = time.perf_counter()
        x = _generate(base, z, lab.batch_size)
        return [_point(lab, x, 0, 0.0, 0.0, time.perf_counter() - clock)]
    target, counted = image_target(lab, row)
    if not row.stages:
        rng, clock = seeded_generator(seed, 2), time.perf_counter()
        x = rejection_sample(
            target, num_samples=len(z), generator=rng, percentile=DRS_PERCENTILE, batch_size=250
        ).x
        seconds = time.perf_counter() - clock
        return [_point(lab, x, 0, 0.0, counted.forwards / len(z), seconds)]
    if row.space == "data":
        z = _generate(LatentTarget(lab.pair.generator, counted, None), z, lab.batch_size)
    points = []
    for step, moved, cost in _follow(target, counted, row, z, at, seed, lab.batch_size):
        gradients, forwards, seconds = (float(value) for value in cost)
        x = _generate(target, moved, lab.batch_size)
        points.append(_point(lab, x, step, gradients / len(z), forwards / len(z), seconds))
    return points


def _generate(target: LatentTarget, z: Tensor, batch_size: int) -> Tensor:
    return torch.cat([target.generate(part) for part in z.split(batch_size)])


def _point(
    lab: Lab, x: Tensor, steps: int, gradients: float, forwards: float, seconds: float
) -> dict[str, Any]:
    cost = {"gradient_evaluations": gradients, "forward_evaluations": forwards, "seconds": seconds}
    return {"steps": steps, **lab.evaluate(x), **cost}


def _follow(
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
        batches.append(_follow_batch(samplers, part, seeded_generator(seed, 1000 + b), meter))
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


def reproduce_images(
    pair: str | Path = "cifar10-sn-dcgan-small",
    *,
    num_samples: int = 5000,
    num_seeds: int = 3,
    command: str = "",
    ledger: Path | None = None,
    evaluate: Evaluate = evaluate_images,
    held_out: Tensor | None = None,
) -> dict[str, Any]:
    """Run every row and every curve on a trained pair.

    Args:
        pair: a name of the zoo or a folder.
        num_samples: images a row and seed; 50,000 in the papers.
        num_seeds: seeds, counted from 0, of latents and noise; a row may name fewer, and the result says so.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.
        evaluate: gives an image set's figures.
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
    lab = open_lab(pair, num_samples=num_samples, evaluate=evaluate, held_out=held_out)
    table: list[tuple[Row | None, list[int], list[dict[str, Any]]]] = []
    curves = []
    for job in progress(jobs(num_seeds), desc="reproduce cifar10", unit="run"):
        row, seed, at = job
        points = do(lab, job, ledger)
        if at:
            curves.append({**heading(row), "seed": seed, "points": points})
        elif table and table[-1][0] is row:
            table[-1][1].append(seed)
            table[-1][2].extend(points)
        else:
            table.append((row, [seed], points))
    return {
        "experiment": "cifar10",
        "command": command,
        "pair": {"name": str(pair), "seed": lab.pair.card.get("seed")},
        "num_samples": num_samples,
        "hardware": hardware(),
        "extractor": table[0][2][0].get("extractor"),
        "reference": table[0][2][0].get("reference"),
        "calibration": lab.calibration,
        "real": _summary(
            remembered(ledger, f"real {num_samples} {num_seeds}", partial(_real, lab, num_seeds))
        ),
        "rows": [{**heading(row), "seeds": seeds, **_summary(runs)} for row, seeds, runs in table],
        "curves": curves,
        "cheapest": cheapest(curves),
    }


def _real(lab: Lab, num_seeds: int) -> list[dict[str, Any]]:
    """What held-out real images get in the generator's place."""
    runs = []
    for seed in range(num_seeds):
        order = torch.randperm(len(lab.held_out), generator=seeded_generator(seed, 3))
        runs.append(lab.evaluate(lab.held_out[order[: lab.num_samples]]))
    return runs


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
