"""Refine a generator's samples with its discriminator: DDLS, DGflow, DOT, DRS and MH-GAN.

A target is something that a discriminator lets you score, a sampler moves points toward it, and `run` is
the one loop:

    target = LatentTarget(generator, logit, prior)
    result = refine(target, gradient_flow(target), num_samples=1000, num_steps=25, seed=0)
"""

from logitflow.run import refine, run
from logitflow.target import LatentTarget

__version__ = "0.1.0"
__all__ = ["LatentTarget", "refine", "run"]
