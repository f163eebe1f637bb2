"""The pictures that chapters share.

Small functions draw on the Axes they are given and return it; `before_after`, `grid_of_samples`,
`comparison`, `quality_curve`, `ngram_curve` and those of images make a Figure of their own and return it,
closed in pyplot: a notebook shows it once, when it is a cell's last expression, and `save` writes it.
`before_after_text` and `path_of_text` make no figure but HTML, which a notebook shows too. Only `theme`
touches matplotlib's settings. Points are tensors or arrays of shape (N, 2), images tensors of shape
(N, 3, H, W) in [−1, 1].
"""

from .figures import before_after, comparison, grid_of_samples
from .images import (
    before_after_images,
    class_histogram,
    image_grid,
    moments_of_images,
    path_of_images,
    quality_curve,
)
from .panels import density, histogram, logit_map, paths, samples, vector_field
from .style import COLORS, color_of, save, theme
from .text import before_after_text, ngram_bars, ngram_curve, path_of_text

__all__ = [
    "COLORS",
    "before_after",
    "before_after_images",
    "before_after_text",
    "class_histogram",
    "color_of",
    "comparison",
    "density",
    "grid_of_samples",
    "histogram",
    "image_grid",
    "logit_map",
    "moments_of_images",
    "ngram_bars",
    "ngram_curve",
    "path_of_images",
    "path_of_text",
    "paths",
    "quality_curve",
    "samples",
    "save",
    "theme",
    "vector_field",
]
