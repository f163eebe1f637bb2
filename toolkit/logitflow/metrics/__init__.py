"""Measures of samples: against a known mixture, and against real samples."""

from .mixture import (
    energy_floor,
    expected_energy_distance,
    high_quality_fraction,
    kde_score,
    log_likelihood,
    mode_weights,
    recovered_modes,
    spread_within_modes,
)
from .two_sample import Floor, energy_distance, floor, mmd, sliced_wasserstein

__all__ = [
    "Floor",
    "energy_distance",
    "energy_floor",
    "expected_energy_distance",
    "floor",
    "high_quality_fraction",
    "kde_score",
    "log_likelihood",
    "mmd",
    "mode_weights",
    "recovered_modes",
    "sliced_wasserstein",
    "spread_within_modes",
]
