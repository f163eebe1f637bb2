"""What one Axes shows: each function draws on the Axes it is given and returns it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap

from .style import COLORS, NUM_STDS, Points, as_array, as_points, plane

Extent = tuple[float, float, float, float]  # left, right, bottom, top

_SHADES = LinearSegmentedColormap.from_list("shades", ["white", "#6baed6", "#08306b"])


def samples(
    x: Points,
    *,
    ax: Axes,
    centers: Points | None = None,
    std: float | None = None,
    color: Any = COLORS["base"],
    title: str | None = None,
) -> Axes:
    """Scatter points with equal axes; with `centers` and `std`, ring every mode at 4 std.

    Args:
        x: points, shape (N, 2).
        ax: where to draw.
        centers: the modes' means, shape (K, 2).
        std: standard deviation of a mode, in units of x.
        color: one colour, or one for each point.
        title: set above.

    Raises:
        ValueError: points are non-finite or of another shape.
    """
    x = as_points(x, "x")
    size = float(np.clip(4000 / max(len(x), 1), 1.5, 12))  # smaller points when there are more
    ax.scatter(x[:, 0], x[:, 1], s=size, c=color, alpha=0.6, linewidths=0, rasterized=True)
    if centers is not None and std is not None:
        _rings(as_points(centers, "centers"), 2 * NUM_STDS * std, ax)
    if title is not None:
        ax.set_title(title)
    return plane(ax)


def density(
    log_density: Callable[[torch.Tensor], torch.Tensor],
    *,
    ax: Axes,
    extent: Extent,
    num: int = 200,
) -> Axes:
    """Heat map of exp(log_density), unnormalised: white is none, dark is the highest on the grid.

    Args:
        log_density: function of points (M, 2) that returns (M,).
        ax: where to draw.
        extent: left, right, bottom, top.
        num: grid points a side.

    Raises:
        ValueError: log_density returns another shape, or NaN.
    """
    values = _on_grid(log_density, extent, num)
    ax.imshow(np.exp(values - values.max()), cmap=_SHADES, vmin=0, **_image(extent))
    return plane(ax)


def logit_map(
    logit: Callable[[torch.Tensor], torch.Tensor],
    *,
    ax: Axes,
    extent: Extent,
    num: int = 200,
    label: str = "logit d(x)",
) -> Axes:
    """Heat map of a logit with its colour bar: blue where it says real, red where fake, white at 0.

    Arguments and refusals as in `density`.
    """
    values = _on_grid(logit, extent, num)
    largest = np.abs(values).max()
    image = ax.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest, **_image(extent))
    ax.figure.colorbar(image, cax=ax.inset_axes((1.04, 0, 0.05, 1)), label=label)
    return plane(ax)


def vector_field(
    field: Callable[[torch.Tensor], torch.Tensor],
    *,
    ax: Axes,
    extent: Extent,
    num: int = 18,
    color: str = COLORS["real"],
) -> Axes:
    """Arrows of a field on a grid, as long as the field is strong; the longest spans 1.5 cells.

    Args:
        field: function of points (M, 2) that returns vectors (M, 2).
        ax: where to draw.
        extent: left, right, bottom, top.
        num: arrows a side.
        color: of the arrows.

    Raises:
        ValueError: field returns another shape or a non-finite value.
    """
    grid = _grid(extent, num)
    vectors = as_points(field(grid), "the field's value")
    longest = np.hypot(*vectors.T).max()
    cell = max(extent[1] - extent[0], extent[3] - extent[2]) / num
    scale = longest / (1.5 * cell) if longest > 0 else 1.0
    ax.quiver(
        *grid.numpy().T,
        *vectors.T,
        angles="xy",
        scale_units="xy",
        scale=scale,
        pivot="mid",
        width=0.005,
        color=color,
    )
    ax.set(xlim=extent[:2], ylim=extent[2:])
    return plane(ax)


def paths(trajectory: Points, *, ax: Axes, color: str = COLORS["dgflow"]) -> Axes:
    """Draw the ways of points: hollow where they start, filled where they end.

    Args:
        trajectory: T positions of N points, shape (T, N, 2).
        ax: where to draw.
        color: of lines and ends.

    Raises:
        ValueError: trajectory is non-finite or of another shape.
    """
    steps = as_array(trajectory)
    if steps.ndim != 3 or steps.shape[2] != 2:
        raise ValueError(f"trajectory must have shape (T, N, 2), not {steps.shape}.")
    flat = as_points(steps.reshape(-1, 2), "trajectory").reshape(steps.shape)
    ax.plot(flat[:, :, 0], flat[:, :, 1], color=color, linewidth=0.9, alpha=0.6)
    edge = COLORS["real"]
    ax.scatter(
        flat[0, :, 0],
        flat[0, :, 1],
        s=22,
        facecolors="white",
        edgecolors=edge,
        linewidths=1,
        zorder=3,
    )
    ax.scatter(
        flat[-1, :, 0],
        flat[-1, :, 1],
        s=22,
        facecolors=color,
        edgecolors=edge,
        linewidths=0.5,
        zorder=4,
    )
    return plane(ax)


def histogram(
    values: Points,
    *,
    ax: Axes,
    density: Callable[[torch.Tensor], torch.Tensor] | None = None,
    bins: int = 60,
    color: str = COLORS["ddls"],
    label: str | None = None,
) -> Axes:
    """Histogram of area 1, and over it the target's density in black.

    Args:
        values: numbers, shape (N,).
        ax: where to draw.
        density: function of points (M,) that returns the density (M,), normalised.
        bins: number of bars.
        color: of the bars.
        label: of the bars in a legend.

    Raises:
        ValueError: values are empty, non-finite or of another shape.
    """
    values = as_array(values)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"values must be finite and of shape (N,), not {values.shape}.")
    ax.hist(values, bins=bins, density=True, color=color, alpha=0.55, label=label)
    if density is not None:
        at = torch.linspace(*ax.get_xlim(), 400, dtype=torch.float64)
        ax.plot(at, as_array(density(at)), color="black", linewidth=1.8, label="target")
    ax.set(xlabel="x", ylabel="density")
    return ax


def _rings(centers: np.ndarray, diameter: float, ax: Axes) -> None:
    size = np.full(len(centers), diameter)
    ax.add_collection(
        EllipseCollection(
            size,
            size,
            np.zeros(len(centers)),
            units="xy",
            offsets=centers,
            transOffset=ax.transData,
            facecolors="none",
            edgecolors=COLORS["real"],
            linewidths=0.8,
            alpha=0.5,
        )
    )


def _image(extent: Extent) -> dict[str, Any]:
    return {"extent": extent, "origin": "lower", "interpolation": "nearest"}


def _grid(extent: Extent, num: int) -> torch.Tensor:
    left, right, bottom, top = extent
    xs, ys = torch.linspace(left, right, num), torch.linspace(bottom, top, num)
    return torch.cartesian_prod(ys, xs).flip(1)  # row by row from the bottom


def _on_grid(
    function: Callable[[torch.Tensor], torch.Tensor], extent: Extent, num: int
) -> np.ndarray:
    values = as_array(function(_grid(extent, num)))
    if values.shape not in {(num * num,), (num * num, 1)} or np.isnan(values).any():
        raise ValueError(
            f"The function must return a number for each of {num * num} points, no NaN; it "
            f"returned shape {values.shape}."
        )
    return values.reshape(num, num)
