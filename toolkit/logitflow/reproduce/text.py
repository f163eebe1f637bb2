"""The text table: every method on a trained pair, and how n-grams change with the steps."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logitflow import zoo
from logitflow.data.text import billion_words, one_hot, to_codes, windows
from logitflow.metrics.text import TextReference, evaluate_text
from logitflow.metrics.text_reference import load_reference
from logitflow.ratio import z_statistic
from logitflow.reproduce.common import hardware, heading, summarise
from logitflow.reproduce.lab import CPU, Lab, box, calibrated, fast_pair, possible, scores
from logitflow.reproduce.settings import text_curve_rows, text_rows
from logitflow.reproduce.table import Job, gather, measure, numbers, plan, recall
from logitflow.run import seeded_generator
from logitflow.target import Network

PAIR = "text-wgan-gp-small"
"""The shipped pair that the table is about."""
HELD_OUT = 5000
"""Windows of held-out text by which the logits are calibrated and judged."""


def decoded(x: Tensor) -> Tensor:
    """Rows of probabilities as the one-hot rows of their likeliest characters: (N, L, 96) → (N, L, 96).

    Its own gradient is zero. In its place that of the rows passes straight through: whoever scores decoded text
    knows in which direction to move. MALA stays exact, as it does with any drift.
    """
    return one_hot(to_codes(x.detach())).to(x) + (x - x.detach())


def text_logits(pair: zoo.Pair, shift: float, slope: float) -> dict[str, Network]:
    """A pair's logits by the names that the rows use.

    Args:
        pair: its discriminator is the critic; one without a fitted critic has two logits fewer.
        shift: of the map from the critic to a log ratio, slope · critic + shift.
        slope: of that map.
    """
    logits: dict[str, Network] = {
        "critic": pair.discriminator,
        "calibrated": lambda x: slope * pair.discriminator(x) + shift,
    }
    if pair.fitted is not None:
        logits["fitted"] = pair.fitted
    own = {name: logit for name, logit in logits.items() if name != "critic"}
    return logits | {f"{name}, decoded": _of_decoded(logit) for name, logit in own.items()}


def _of_decoded(logit: Network) -> Network:
    return lambda x: logit(decoded(x))


def open_text_lab(
    pair: str | Path,
    *,
    reference: TextReference | None = None,
    held_out: Tensor | None = None,
    device: torch.device = CPU,
) -> Lab:
    """Load a pair of text, made fast, with its logits, calibrated between real and *decoded* generated windows.

    Args:
        pair: a name of the zoo or a folder.
        reference: None for the shipped one.
        held_out: codes of real windows, (M, 32); None for some of the benchmark's test text.
        device: where to compute.
    """
    own = fast_pair(zoo.to_device(zoo.load(pair), device))
    if held_out is None:
        known = windows(billion_words("test").sentences)
        order = torch.randperm(len(known), generator=seeded_generator(0, 101))
        held_out = known[order[:HELD_OUT]]
    real = one_hot(held_out).to(device)
    _, facts = calibrated(*scores(own.discriminator, own, real, decoded))
    if own.fitted is not None:
        fitted = scores(own.fitted, own, real, decoded)
        facts["z_fitted"] = z_statistic(*fitted).statistic
        facts["mean_ratio_fitted"] = float(fitted[1].double().exp().mean())
    logits = text_logits(own, facts["shift"], facts["slope"])
    shares = box(0.0, 1.0, real.shape[1:], device)  # a row's entries are probabilities
    return Lab(own, logits, held_out, reference or load_reference(), facts, shares, device=device)


def jobs(lab: Lab, num_samples: int, num_seeds: int, curve_samples: int) -> list[Job]:
    """All that the table is made of, as far as the pair has the logits. Processes may share them out."""
    return plan(
        possible(lab, text_rows()),
        possible(lab, text_curve_rows()),
        num_samples=num_samples,
        num_seeds=num_seeds,
        curve_samples=curve_samples,
    )


def do(lab: Lab, job: Job, ledger: Path | None = None) -> list[dict[str, Any]]:
    """A job's figures, at each of its steps; those of a finished job are found in the ledger."""
    return recall(lab, job, ledger, _do)


def _do(lab: Lab, job: Job) -> list[dict[str, Any]]:
    return measure(lab, job, evaluate_text, evaluate_text)


def reproduce_text(
    pair: str | Path = PAIR,
    *,
    num_samples: int = 10_000,
    num_seeds: int = 3,
    curve_samples: int = 500,
    command: str = "",
    ledger: Path | None = None,
    reference: TextReference | None = None,
    held_out: Tensor | None = None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Run every row and every curve on a trained pair.

    Args:
        pair: a name of the zoo or a folder.
        num_samples: windows a row and seed; JS and distinct n-grams depend on it, and the floor is of as many.
        num_seeds: seeds, counted from 0, of latents and noise; a row may name fewer, and the result says so.
        curve_samples: windows a curve, where they are fewer than `num_samples`.
        command: what was typed, for the record.
        ledger: a file in which finished runs are kept, so that a killed table goes on; the caller removes it.
        reference: None for the shipped one.
        held_out: codes of real windows, (M, 32), to calibrate with; None for some of the benchmark's test text.
        device: where to compute; another draws other numbers.

    Returns:
        A dictionary for JSON: command, hardware, the reference; how far the critic and the fitted critic
        are from log ratios; what real windows get; each row with its settings, its seeds, and each
        figure's mean and standard error; each curve with its points.

    Raises:
        ValueError: fewer than 1 seed is asked for, or numbers of windows for which there is no floor.
        FileNotFoundError, ConnectionError: there is no such pair, or no data to calibrate with.
    """
    if num_seeds < 1:
        raise ValueError("a table needs at least 1 seed")
    reference = reference or load_reference()
    few = min(curve_samples, num_samples)
    real, real_of_curves = (_real(reference, n) for n in (num_samples, few))
    lab = open_text_lab(pair, reference=reference, held_out=held_out, device=device)
    table = jobs(lab, num_samples, num_seeds, few)
    lines, curves = gather(table, partial(do, lab, ledger=ledger), desc="reproduce text")
    return {
        "experiment": "text",
        "command": command,
        "pair": {"name": str(pair), "seed": lab.pair.card.get("seed")},
        "num_samples": num_samples,
        "curve_samples": few,
        "precision": "bfloat16",
        "hardware": hardware(device),
        "reference": reference.name,
        "calibration": lab.calibration,
        "real": {"metrics": real},
        "real_of_curves": real_of_curves,
        "rows": [
            {**heading(row), "seeds": seeds, "metrics": summarise(numbers(runs))}
            for row, seeds, runs in lines
        ],
        "curves": curves,
    }


def _real(reference: TextReference, n: int) -> dict[str, dict[str, float | None]]:
    """What n real windows get: n-grams are those of training text, words and copies of held-out text."""
    draws = reference.floors.get("draws", 1)
    floor = {
        name: {"mean": spread.mean, "standard_error": spread.std / draws**0.5}
        for name, spread in reference.floor(n).items()
    }
    known = {name: {"mean": v, "standard_error": None} for name, v in reference.held_out.items()}
    return floor | known
