"""Samplers: each a pair of pure functions that moves points toward a target."""

from logitflow.samplers.core import Info, Sampler
from logitflow.samplers.cycle import cycle
from logitflow.samplers.gradient_flow import gradient_flow
from logitflow.samplers.langevin import langevin
from logitflow.samplers.metropolis import metropolis_hastings
from logitflow.samplers.precondition import gradient_root, precondition
from logitflow.samplers.rejection import rejection_sample
from logitflow.samplers.transport import estimate_lipschitz, optimal_transport

__all__ = [
    "Info",
    "Sampler",
    "cycle",
    "estimate_lipschitz",
    "gradient_flow",
    "gradient_root",
    "langevin",
    "metropolis_hastings",
    "optimal_transport",
    "precondition",
    "rejection_sample",
]
