"""The pictures that chapters share.

Small functions draw on the Axes they are given and return it; `before_after`, `grid_of_samples` and
`comparison` make a Figure of their own and return it, closed in pyplot: a notebook shows it once,
when it is a cell's last expression, and `save` writes it. Only `theme` touches matplotlib's
settings. Points are tensors or arrays of shape (N, 2).
"""

from .figures import before_after, comparison, grid_of_samples
from .panels import density, histogram, logit_map, paths, samples, vector_field
from .style import COLORS, color_of, save, theme

__all__ = [
    "COLORS",
    "before_after",
    "color_of",
    "comparison",
    "density",
    "grid_of_samples",
    "histogram",
    "logit_map",
    "paths",
    "samples",
    "save",
    "theme",
    "vector_field",
]
