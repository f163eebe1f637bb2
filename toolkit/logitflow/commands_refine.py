"""What `logitflow refine` does, from its parsed options."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save

from logitflow import plots, priors, zoo
from logitflow.commands import plain, toy_of, truth, write_json
from logitflow.data.text import decode
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.inference import fast
from logitflow.processes import gathered, is_first, share
from logitflow.ratio import names_classes, stratified
from logitflow.reproduce.settings import TEXT_EPSILON, TEXT_ETA
from logitflow.reproduce.table import DRS_PERCENTILE
from logitflow.run import refine as run_refine
from logitflow.run import seeded_generator
from logitflow.samplers import (
    Sampler,
    cycle,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
    rejection_sample,
)
from logitflow.target import LatentTarget

REFINE_DEFAULTS = {"steps": (100, 25), "num_samples": (10_000, 1000), "batch_size": (2000, 250)}
"""What `refine` does where it is not told: for points, and for images and text."""
STEP_SIZES = {
    "points": {"dgflow": 1e-3, "ddls": 1e-3, "mala": 1e-3, "mh-gan+mala": 1e-3},
    "images": {"dgflow": 0.1, "ddls": 0.05, "mala": 0.05, "mh-gan+mala": 0.05},
    "text": {
        "dgflow": TEXT_ETA,
        "ddls": TEXT_EPSILON,
        "mala": TEXT_EPSILON,
        "mh-gan+mala": TEXT_EPSILON,
    },
}
"""The samplers' steps; DOT's are its own."""
LATENTS = 1_000_000
"""The first of the streams that starting points are drawn from; `run.refine` moves them by those from 0."""
SHOWN = 5
"""Of refined texts, so many are printed."""


def refine(options: argparse.Namespace) -> None:
    """Refine a pair's samples; a killed run goes on from its shards."""
    pair = zoo.load(options.pair)
    logit = _logit(pair, options)
    target = LatentTarget(pair.generator, logit, pair.prior)
    one = target.generate(priors.sample(pair.prior, 1, seeded_generator(0, 0)))
    kind = {2: "points", 3: "text", 4: "images"}[one.ndim]
    _fill_in(options, kind)
    z = _latents(pair, options)
    at = choose(options.device)
    pair = zoo.to_device(pair, at)
    target = LatentTarget(pair.generator, logit, pair.prior)
    if kind == "images":
        target = LatentTarget(fast(pair.generator), fast(logit), pair.prior)
    parts = share(z.split(options.batch_size))
    before = torch.cat(gathered([target.generate(part.to(at)).cpu() for part in parts]))
    if options.space == "data":
        target, z = LatentTarget(lambda x: x, target.logit, None), before
    if options.method == "drs":
        result = rejection_sample(
            target,
            num_samples=options.num_samples,
            generator=seeded_generator(options.seed, 2, at),
            percentile=None if kind == "points" else DRS_PERCENTILE,
            batch_size=min(1000, options.batch_size),
        )
    else:
        result = run_refine(
            target,
            _sampler(target, options),
            num_samples=options.num_samples,
            num_steps=options.steps,
            batch_size=options.batch_size,
            seed=options.seed,
            z=z,
            device=at,
            folder=options.out / "shards",
        )
    if not is_first():
        return
    samples = options.out / "samples.safetensors"
    kept = {"x": result.x.cpu(), "z": result.z.cpu()}  # in data space the same memory
    write_atomically(samples, save({name: t.contiguous().clone() for name, t in kept.items()}))
    info = {name: float(value) for name, value in result.info._asdict().items()}
    write_json(options.out / "refine.json", {"options": plain(options), "info": info})
    _show(pair, before, kept["x"], options.out)
    print(
        f"wrote {samples}: {options.num_samples} samples, acceptance rate {info['acceptance_rate']:.2f}, "
        f"{info['num_nonfinite']:.0f} non-finite moves refused"
    )


def _latents(pair: zoo.Pair, options: argparse.Namespace) -> torch.Tensor:
    """Where the points start, batch by batch as they are refined; drawn on the CPU for every device."""
    parts = torch.arange(options.num_samples).split(options.batch_size)
    streams = [seeded_generator(options.seed, LATENTS + b) for b in range(len(parts))]
    return torch.cat(
        [
            priors.sample(pair.prior, len(part), rng)
            for part, rng in zip(parts, streams, strict=True)
        ]
    )


def _fill_in(options: argparse.Namespace, kind: str) -> None:
    """Put the default where an option was not given, and refuse what cannot be."""
    for name, (of_points, of_others) in REFINE_DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, of_points if kind == "points" else of_others)
    if options.step_size is None:
        options.step_size = STEP_SIZES[kind].get(options.method)
    if kind == "text" and options.space == "data":
        raise ValueError("characters cannot be moved a little: refine text with --space latent")
    for name in ("num_samples", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")


def _logit(pair: zoo.Pair, options: argparse.Namespace) -> torch.nn.Module:
    if options.logit is None:
        options.logit = "discriminator" if pair.fitted is None else "fitted"
    if options.logit == "discriminator":
        return pair.discriminator
    if options.logit == "stratified":
        if not names_classes(pair.discriminator):
            raise ValueError(
                f"the discriminator of {options.pair} names no classes: use --logit discriminator"
            )
        if options.method == "drs":
            raise ValueError("rejection keeps no sample in its class: use --method mh-gan")
        return stratified(pair.discriminator)
    if pair.fitted is None:
        raise ValueError(f"{options.pair} has no fitted discriminator: use --logit discriminator")
    return pair.fitted


def _show(pair: zoo.Pair, before: torch.Tensor, after: torch.Tensor, folder: Path) -> None:
    """A picture of what refinement did, or of text a file and its first lines."""
    kind, path = toy_of(pair), folder / "before-after.png"
    if kind is not None:
        plots.save(plots.before_after(before, after, **truth(kind)), path)
    elif before.ndim == 4:
        plots.save(plots.before_after_images(before[:32], after[:32]), path)
    elif before.ndim == 3:
        texts = plots.before_after_text(decode(before), decode(after))
        write_atomically(path.with_suffix(".txt"), f"{texts}\n".encode())
        print(plots.before_after_text(*(lines[:SHOWN] for lines in texts.frames)))


def _sampler(target: LatentTarget, options: argparse.Namespace) -> Sampler:
    step = {} if options.step_size is None else {"step_size": options.step_size}
    match options.method:
        case "dgflow":
            return gradient_flow(target, divergence=options.divergence, gamma=options.gamma, **step)
        case "dot":
            return optimal_transport(target, **step)
        case "mh-gan":
            return metropolis_hastings(target)
    chain = langevin(target, adjust=options.method != "ddls", **step)
    return cycle(metropolis_hastings(target), chain) if options.method == "mh-gan+mala" else chain
