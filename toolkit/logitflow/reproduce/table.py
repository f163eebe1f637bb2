"""How a long table on a trained pair is run: in jobs, remembered when done, gathered into rows and curves."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from logitflow import priors
from logitflow.ledger import remembered
from logitflow.processes import alone, gathered, share
from logitflow.progress import progress
from logitflow.reproduce.common import Row, heading
from logitflow.reproduce.lab import Lab, follow, generate, row_target
from logitflow.run import seeded_generator
from logitflow.samplers import rejection_sample
from logitflow.target import LatentTarget

Figures = Callable[[Tensor, Any], dict[str, Any]]
"""What is measured of samples by a lab's judge."""

STEPS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 25, 40, 60, 100, 150, 200)
"""Where the curves are measured."""
# the authors' for images; plain rejection would accept hardly one in a thousand
DRS_PERCENTILE = 80.0


class Job(NamedTuple):
    """A piece of the table that is done whole or not at all."""

    row: Row | None  # None is the base, which moves nothing
    seed: int
    num_samples: int
    at: tuple[int, ...] = ()  # a curve's steps to look at; none: at the end, with every figure


class Line(NamedTuple):
    """A row of the table with what its seeds gave."""

    row: Row | None
    seeds: list[int]
    runs: list[dict[str, Any]]


def refuse_too_few(num_seeds: int, num_images: int) -> None:
    """Raise ValueError for a table of images that would have nothing to say."""
    if num_seeds < 1 or num_images < 4:
        raise ValueError("a table needs at least 1 seed and 4 images")


def plan(
    rows: Sequence[Row],
    curves: Sequence[Row],
    *,
    num_samples: int,
    num_seeds: int,
    curve_samples: int,
) -> list[Job]:
    """All that a table is made of: the base, the rows, then the curves, looked at after each of `STEPS`."""

    def seeds(row: Row) -> range:
        return range(num_seeds if row.most_seeds is None else min(num_seeds, row.most_seeds))

    table = [Job(None, seed, num_samples) for seed in range(num_seeds)]
    table += [Job(row, seed, num_samples) for row in rows for seed in seeds(row)]
    for row in curves:
        length = sum(count for _, count in row.stages)
        at = (*(k for k in STEPS if k < length), length)
        table += [Job(row, seed, curve_samples, at) for seed in seeds(row)]
    return table


def recall(
    lab: Lab, job: Job, ledger: Path | None, work: Callable[[Lab, Job], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """A job's figures, at each of its steps; those of a finished job are found in the ledger."""
    what = [heading(job.row), *job[1:], lab.batch_size, lab.pair.card["networks"]]
    if lab.device.type != "cpu":  # which draws other numbers
        what.append(lab.device.type)
    return remembered(ledger, json.dumps(what), partial(work, lab, job))


def measure(lab: Lab, job: Job, figures: Figures, few_figures: Figures) -> list[dict[str, Any]]:
    """Do a job: every figure at its end, or a few at each step of a curve."""
    row, seed, n, at = job
    z = priors.sample(lab.pair.prior, n, seeded_generator(seed, 1, lab.device))
    clock = time.perf_counter()
    if row is None or row.space == "data":
        base = LatentTarget(lab.pair.generator, lab.pair.discriminator, lab.pair.prior)
        x = generate(base, z, lab.batch_size)
    if row is None:
        seconds = time.perf_counter() - clock
        return [{"steps": 0, **_cost(0, 0, seconds, n), **figures(x, lab.judge)}]
    target, counted = row_target(lab, row)
    if not row.stages:
        rng = seeded_generator(seed, 2, lab.device)
        x = rejection_sample(
            target, num_samples=n, generator=rng, percentile=DRS_PERCENTILE, batch_size=250
        ).x
        cost = _cost(0, counted.forwards, time.perf_counter() - clock, n)
        return [{"steps": 0, **cost, **figures(x, lab.judge)}]
    start = x if row.space == "data" else z
    points = []
    for step, moved, spent in follow(target, counted, row, start, at, seed, lab.batch_size):
        x = generate(target, moved, lab.batch_size)
        if row.data_stages:
            step, x, more = _move_data(lab, row, x, step, seed)
            spent = spent + more
        seen = (few_figures if at else figures)(x, lab.judge)
        gradients, forwards, seconds = spent.tolist()
        points.append({"steps": step, **_cost(gradients, forwards, seconds, n), **seen})
    return points


def _move_data(lab: Lab, row: Row, x: Tensor, step: int, seed: int) -> tuple[int, Tensor, Tensor]:
    """The last stages of a row, in data space: the steps by then, the samples, and what they have cost."""
    last = row._replace(space="data", stages=row.data_stages)
    target, counted = row_target(lab, last)
    # noise of its own: the latent stages have had that of this seed
    ((more, x, spent),) = follow(target, counted, last, x, (), seed + 10**6, lab.batch_size)
    return step + more, x, spent


def _cost(gradients: float, forwards: float, seconds: float, n: int) -> dict[str, float]:
    return {
        "gradient_evaluations": gradients / n,
        "forward_evaluations": forwards / n,
        "seconds": seconds,
    }


def _work(point: dict[str, float]) -> float:
    """A cost in gradient evaluations, each a pass forward and one back; a forward alone is half of one."""
    return (point["gradient_evaluations"] + point["forward_evaluations"]) / 2


def gather(
    jobs: Sequence[Job], work: Callable[[Job], list[dict[str, Any]]], *, desc: str
) -> tuple[list[Line], list[dict[str, Any]]]:
    """Do the jobs in turn: the table's lines, and each curve with its points for JSON.

    Under `torchrun` each process does its share of them by itself, and all return the whole table.
    """
    lines: list[Line] = []
    curves = []
    done = []
    for job in progress(share(jobs), desc=desc, unit="run"):
        with alone():
            done.append(work(job))
    for job, points in zip(jobs, gathered(done), strict=True):
        if job.at:
            worked = [{**point, "work": _work(point)} for point in points]
            curves.append({**heading(job.row), "seed": job.seed, "points": worked})
        elif lines and lines[-1].row is job.row:
            lines[-1].seeds.append(job.seed)
            lines[-1].runs.extend(points)
        else:
            lines.append(Line(job.row, [job.seed], points))
    return lines, curves


def numbers(runs: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Of each run, what `summarise` can take the mean of."""
    return [{k: v for k, v in run.items() if isinstance(v, int | float)} for run in runs]
