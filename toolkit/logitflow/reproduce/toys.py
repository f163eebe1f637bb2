"""The two-dimensional tables: every method on a shipped pair, several seeds, one JSON and one picture."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitflow import metrics, priors, zoo
from logitflow.ledger import remembered
from logitflow.processes import alone, gathered, share
from logitflow.progress import progress
from logitflow.ratio import calibrate
from logitflow.recipes import Toy, toy
from logitflow.reproduce.common import Counted, MakeSampler, Row, hardware, heading, summarise
from logitflow.run import refine, seeded_generator
from logitflow.samplers import (
    Sampler,
    cycle,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
    rejection_sample,
)
from logitflow.target import LatentTarget, Network


def rows() -> list[Row]:
    """The table's lines, with the settings that the book reports."""

    def ula(target: LatentTarget) -> Sampler:
        return langevin(target, step_size=1e-4)

    def mala(target: LatentTarget) -> Sampler:
        return langevin(target, step_size=1e-4, adjust=True)

    def mixed(target: LatentTarget) -> Sampler:
        return cycle(metropolis_hastings(target), mala(target))

    def flow(divergence: str, step_size: float, gamma: float) -> MakeSampler:
        return lambda target: gradient_flow(
            target, divergence=divergence, step_size=step_size, gamma=gamma
        )

    # γ is chosen so that the noise of a step, √(2ηγ), is small beside a mode's spread.
    flows = [
        Row(f"DGflow ({name})", logit, space, ((flow(key, step_size, gamma), 50),))
        for logit, space, step_size, gamma in (
            ("calibrated", "latent", 1e-3, 0.1),
            ("calibrated", "data", 2e-3, 0.01),
            ("fitted", "latent", 1e-4, 0.1),
            ("fitted", "data", 1e-5, 0.1),
        )
        for key, name in (("kl", "KL"), ("js", "JS"), ("logd", "logD"))
    ]
    gentle = flow("kl", 3e-5, 0.1)
    return [
        Row("DRS", "fitted", "latent", ()),
        Row("MH-GAN", "calibrated", "latent", ((metropolis_hastings, 200),)),
        Row("MH-GAN", "fitted", "latent", ((metropolis_hastings, 200),)),
        Row("DOT", "critic", "latent", ((optimal_transport, 100),)),
        Row("DOT", "critic", "data", ((optimal_transport, 100),)),
        Row("DDLS (ULA)", "critic", "latent", ((ula, 100),)),
        Row("DDLS (MALA)", "critic", "latent", ((mala, 100),)),
        Row("DDLS (ULA)", "fitted", "latent", ((ula, 100),)),
        Row("DDLS (MALA)", "fitted", "latent", ((mala, 100),)),
        *flows,
        Row("cycle(MH-GAN, MALA)", "fitted", "latent", ((mixed, 50),)),
        Row("MH-GAN, then DGflow", "fitted", "latent", ((metropolis_hastings, 100), (gentle, 10))),
    ]


def reproduce(
    name: str,
    *,
    num_samples: int = 10_000,
    num_seeds: int = 5,
    command: str = "",
    ledger: Path | None = None,
) -> dict[str, Any]:
    """Run every row on a toy's shipped pair.

    Args:
        name: "25gaussians" or "swissroll".
        num_samples: samples a row and seed.
        num_seeds: seeds, counted from 0; a seed sets the latents, the noise and the real samples.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.

    Returns:
        A dictionary for JSON: command, hardware, seeds, the real-versus-real floors, and for each row
        its settings and each metric's mean and standard error.

    Raises:
        ValueError: the name is unknown, or fewer than 2 seeds or samples are asked for.
    """
    kind, pair = toy(name), zoo.load(f"{name}-wgan-gp")
    table = [row for row in rows() if row.logit != "fitted" or pair.fitted is not None]
    figures, floors = run_rows(
        name,
        pair,
        kind,
        table,
        _logits(pair, kind),
        num_samples=num_samples,
        num_seeds=num_seeds,
        ledger=ledger,
    )
    return {
        "experiment": name,
        "command": command,
        "pair": {"name": f"{name}-wgan-gp", "seed": pair.card["seed"]},
        "num_samples": num_samples,
        "seeds": list(range(num_seeds)),
        "hardware": hardware(),
        "floors": floors,
        "rows": [{**heading(row), "metrics": summarise(runs)} for row, runs in figures.items()],
    }


Figures = dict[Row | None, list[dict[str, float]]]
"""Each row's figures, seed by seed; None is the base."""


def run_rows(
    name: str,
    pair: zoo.Pair,
    kind: Toy,
    table: list[Row],
    logits: dict[str, Network],
    *,
    num_samples: int,
    num_seeds: int,
    ledger: Path | None,
) -> tuple[Figures, dict[str, dict[str, Any]]]:
    """The figures of the base and of every row, and the real-versus-real floors.

    Under `torchrun` each process runs its share of the rows and seeds, and all return the figures of all.

    Args:
        name: of the experiment, for the progress bar.
        pair: its generator and its prior.
        kind: what the samples should look like.
        table: the rows.
        logits: by the names that the rows use.
        num_samples: samples a row and seed.
        num_seeds: seeds, counted from 0.
        ledger: as in `reproduce`.

    Raises:
        ValueError: fewer than 2 seeds or samples are asked for.
    """
    if num_seeds < 2 or num_samples < 2:
        raise ValueError("an error over seeds needs at least 2 seeds, each of at least 2 samples")
    jobs: list[tuple[Row | None, int]] = [(None, seed) for seed in range(num_seeds)]
    jobs += [(row, seed) for row in table for seed in range(num_seeds)]
    done = []
    for row, seed in progress(share(jobs), desc=f"reproduce {name}", unit="run"):
        key = json.dumps([heading(row), seed, num_samples, pair.card["networks"]])
        work = partial(_run_row, row, pair, kind, logits, num_samples, seed)
        with alone():
            done.append(remembered(ledger, key, work))
    figures: Figures = {}
    for (row, _), run in zip(jobs, gathered(done), strict=True):
        figures.setdefault(row, []).append(run)
    floors = _floors(pair, kind, num_samples, num_seeds)
    for runs in figures.values():
        for run in runs:
            run["energy_ratio"] = run["energy_distance"] / floors["energy_distance"]["mean"]
    return figures, floors


def _logits(pair: zoo.Pair, kind: Toy) -> dict[str, Network]:
    rng = seeded_generator(0, 100)
    with torch.no_grad():
        real = pair.discriminator(kind.sample(10_000, rng))
        fake = pair.discriminator(pair.generator(priors.sample(pair.prior, 10_000, rng)))
    calibration = calibrate(real, fake, method="logistic")
    logits: dict[str, Network] = {
        "critic": pair.discriminator,
        "calibrated": lambda x: calibration(pair.discriminator(x)),
    }
    if pair.fitted is not None:
        logits["fitted"] = pair.fitted
    return logits


def _run_row(
    row: Row | None, pair: zoo.Pair, kind: Toy, logits: dict[str, Network], n: int, seed: int
) -> dict[str, float]:
    z, real, rng = _draw(pair, kind, n, seed)
    with torch.no_grad():
        start = pair.generator(z)
    if row is None:
        return measure(start, real, kind) | {"gradient_evaluations": 0.0, "seconds": 0.0}
    counted = Counted(logits[row.logit])
    if row.space == "data":
        target, begin = LatentTarget(lambda x: x, counted, None), start
    else:
        target, begin = LatentTarget(pair.generator, counted, pair.prior), z
    clock = time.perf_counter()
    if not row.stages:
        result = rejection_sample(target, num_samples=n, generator=rng)
    for stage, (make, num_steps) in enumerate(row.stages):
        result = refine(
            target,
            make(target),
            num_samples=n,
            num_steps=num_steps,
            batch_size=2000,
            seed=seed * 10 + stage,
            z=begin,
        )
        begin = result.z
    seconds = time.perf_counter() - clock
    return measure(result.x, real, kind) | {
        "gradient_evaluations": counted.gradients / n,
        "forward_evaluations": counted.forwards / n,
        "seconds": seconds,
    }


def measure(x: Tensor, real: Tensor, kind: Toy) -> dict[str, float]:
    """Every metric of two-dimensional samples x (N, 2), against as many real ones.

    Where the mixture is known, the energy distance is its mean over the real samples' draw; the kernel
    score, whose cost is quadratic, is taken on the first 2,000 of both.
    """
    few = slice(0, 2000)
    figures = {"kde_score": metrics.kde_score(x[few], real[few], bandwidth=0.1)}
    if kind.mixture is None:
        rng = seeded_generator(0, 200)
        return figures | {
            "energy_distance": metrics.energy_distance(x, real),
            "sliced_wasserstein": metrics.sliced_wasserstein(x, real, generator=rng),
        }
    centers, std = kind.mixture
    return figures | {
        "energy_distance": metrics.expected_energy_distance(x, centers, std),
        "high_quality": metrics.high_quality_fraction(x, centers, std),
        "modes": metrics.recovered_modes(x, centers, std),
        "spread": metrics.spread_within_modes(x, centers, std),
        "log_likelihood": metrics.log_likelihood(x, centers, std),
    }


def _draw(pair: zoo.Pair, kind: Toy, n: int, seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """A seed's latents, its real samples, and the generator that drew them."""
    rng = seeded_generator(seed, 1)
    return priors.sample(pair.prior, n, rng), kind.sample(n, rng), rng


def _floors(
    pair: zoo.Pair, kind: Toy, n: int, num_seeds: int, repeats: int = 4
) -> dict[str, dict[str, Any]]:
    """What fresh real samples get against the very real samples that the rows are measured against."""
    runs = []
    for seed in range(num_seeds):
        _, real, rng = _draw(pair, kind, n, seed)
        runs += [measure(kind.sample(n, rng), real, kind) for _ in range(repeats)]
    floors = summarise(runs)
    if kind.mixture is not None:  # known in closed form
        exact = metrics.energy_floor(n, *kind.mixture)
        floors["energy_distance"] = {"mean": exact, "standard_error": 0.0}
    return floors
