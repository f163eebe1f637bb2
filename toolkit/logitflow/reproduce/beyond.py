"""The tables of the toys' models without a discriminator, refined with and without a corrector."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitflow import zoo
from logitflow.data import Mixture
from logitflow.models import RealNVP
from logitflow.recipes import DATA_SETS, MODELS, toy
from logitflow.reproduce.beyond_images import LOGITS
from logitflow.reproduce.common import Row, hardware, heading, summarise
from logitflow.reproduce.toys import run_rows
from logitflow.samplers import Sampler, cycle, gradient_flow, langevin, metropolis_hastings
from logitflow.target import LatentTarget, Network

# DGflow's η and γ: the steeper a generator is in its latents, the shorter its steps must be
FLOW_SETTINGS = {"vae": (3e-3, 0.03), "flow": (1e-4, 0.1), "mmd-gan": (3e-4, 0.1)}


def beyond_rows(model: str) -> list[Row]:
    """The lines of a model's table, with the settings that the book reports."""
    step_size, gamma = FLOW_SETTINGS[model]

    def flow(target: LatentTarget) -> Sampler:
        return gradient_flow(target, divergence="kl", step_size=step_size, gamma=gamma)

    def mala(target: LatentTarget) -> Sampler:
        return langevin(target, step_size=3e-3, adjust=True)

    def mixed(target: LatentTarget) -> Sampler:
        return cycle(metropolis_hastings(target), mala(target))

    methods = (
        ("DGflow (KL)", flow, 50),
        ("DDLS (MALA)", mala, 100),
        ("cycle(MH-GAN, MALA)", mixed, 50),
    )
    return [
        Row(method, logit, "latent", ((make, steps),))
        for logit in LOGITS
        for method, make, steps in methods
    ]


def reproduce_beyond(
    *,
    num_samples: int = 10_000,
    num_seeds: int = 5,
    command: str = "",
    ledger: Path | None = None,
) -> dict[str, Any]:
    """Run every row on each shipped model of the toys.

    Args:
        num_samples: samples a row and seed.
        num_seeds: seeds, counted from 0; a seed sets the latents, the noise and the real samples.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.

    Returns:
        A dictionary for JSON: command, hardware, seeds, and for each model a table like `reproduce`'s, where a
        row's metric `gain` is the share of the base's distance to the floor that it has gone: 1 at the
        floor. The flow's table on the 25 Gaussians also says how far p_g·exp(d) is from the data's
        density (`check_identity`).

    Raises:
        ValueError: fewer than 2 seeds or samples are asked for.
    """
    tables = [
        _table(name, model, num_samples=num_samples, num_seeds=num_seeds, ledger=ledger)
        for name in DATA_SETS
        for model in MODELS
    ]
    return {
        "experiment": "beyond-gans",
        "command": command,
        "num_samples": num_samples,
        "seeds": list(range(num_seeds)),
        "hardware": hardware(),
        "tables": tables,
    }


def _table(name: str, model: str, **settings: Any) -> dict[str, Any]:
    experiment, kind = f"{name}-{model}", toy(name)
    pair = zoo.load(experiment)
    logits = logits_of(pair)
    figures, floors = run_rows(experiment, pair, kind, beyond_rows(model), logits, **settings)
    base, floor = figures[None], floors["energy_distance"]["mean"]
    for runs in figures.values():
        for before, run in zip(base, runs, strict=True):
            gone = before["energy_distance"] - run["energy_distance"]
            run["gain"] = gone / (before["energy_distance"] - floor)
    table: dict[str, Any] = {
        "experiment": experiment,
        "data": name,
        "model": model,
        "pair": {"name": experiment, "seed": pair.card["seed"]},
        "floors": floors,
        "rows": [{**heading(row), "metrics": summarise(runs)} for row, runs in figures.items()],
    }
    if isinstance(pair.generator, RealNVP) and kind.mixture is not None:
        checks = {
            logit: check_identity(pair.generator, logits[logit], kind.mixture) for logit in LOGITS
        }
        table["identity"] = {
            logit: {"mass": check.mass, "total_variation": check.total_variation}
            for logit, check in checks.items()
        }
        table["identity"]["flow alone"] = {
            "mass": 1.0,
            "total_variation": checks["corrected"].flow_total_variation,
        }
    return table


def logits_of(pair: zoo.Pair) -> dict[str, Network]:
    """A model's logits by the names of `LOGITS`.

    Raises:
        ValueError: the pair has no corrector or no fitted discriminator.
    """
    if "corrector" not in pair.networks or pair.fitted is None:
        raise ValueError(
            "a model of `logitflow train vae`, `flow` or `mmd-gan` is needed, not a GAN"
        )
    alone: Any = pair.discriminator.logit  # of the GAN, without the corrector
    return dict(zip(LOGITS, (pair.discriminator, pair.fitted, alone), strict=True))


class Identity(NamedTuple):
    """How well p_g·exp(d) agrees with the data's density on a grid."""

    axis: Tensor  # the grid's coordinates, (P,), the same in both directions
    implied: Tensor  # p_g·exp(d), (P, P), by [first coordinate, second]
    data: Tensor  # the data's density, (P, P)
    mass: float  # the integral of p_g·exp(d); 1 for the true log ratio
    # distance in total variation from the data: of p_g·exp(d)/mass, whose law DDLS samples, and of p_g
    total_variation: float
    flow_total_variation: float


@torch.no_grad()
def check_identity(
    flow: RealNVP, logit: Network, mixture: Mixture, *, points: int = 600, reach: float = 2.0
) -> Identity:
    r"""Compare p_g(x)·exp(d(x)) with the data's density, where both are known exactly.

    Che et al. (2020): for the optimal discriminator's logit the two are equal. The integrals are sums over a
    grid, whose spacing must be well below a mode's deviation.

    Args:
        flow: the model, whose density p_g is exact.
        logit: an estimate of log p_data/p_g.
        mixture: the data.
        points: of the grid in each direction.
        reach: the grid spans −reach…reach in both coordinates.

    Raises:
        ValueError: the grid is coarser than a mode's deviation.
    """
    axis = torch.linspace(-reach, reach, points)
    spacing = float(axis[1] - axis[0])
    if spacing > mixture.std:
        raise ValueError(
            f"a grid of spacing {spacing:.3g} does not see modes of deviation {mixture.std:.3g}: "
            "take more points"
        )
    x = torch.cartesian_prod(axis, axis)
    target = LatentTarget(lambda x: x, logit, None)
    parts = x.split(20_000)
    log_model = torch.cat([flow.log_prob(part) for part in parts]).double()
    logits = torch.cat([target.logits(part) for part in parts]).double()
    data = torch.cat([mixture.log_prob(part) for part in parts]).double().exp()
    model, implied = log_model.exp(), (log_model + logits).exp()
    cell = spacing**2
    mass = float(implied.sum() * cell)
    return Identity(
        axis,
        implied.view(points, points),
        data.view(points, points),
        mass,
        # ∫ max(p − q, 0), which needs the grid only where the data are
        float((data - implied / mass).clamp_min(0).sum() * cell),
        float((data - model).clamp_min(0).sum() * cell),
    )
