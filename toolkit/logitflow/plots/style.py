"""The look that every picture shares, and how one is written to disk."""

import io
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from logitflow.files import write_atomically

# Told apart by colour-blind readers (seaborn's "colorblind", after Okabe and Ito).
COLORS = {
    "real": "#222222",
    "base": "#949494",
    "ddls": "#0173b2",
    "dgflow": "#d55e00",
    "dot": "#029e73",
    "mh": "#cc78bc",
    "drs": "#de8f05",
    "cycle": "#56b4e9",
}
HIGH_QUALITY, LOW_QUALITY = "#0173b2", "#de8f05"
REAL_BEHIND = "#c8c8c8"
MARKS = "osD^vPX*"  # told apart without colour
NUM_STDS = 4.0  # the papers' radius of high quality

WIDTH = 6.4  # inches: on a phone's 345 pixels a 12-point letter is still 9 pixels high

Points = torch.Tensor | np.ndarray


def theme() -> None:
    """Set the book's look for every figure made afterwards: matplotlib's global rcParams change."""
    import seaborn as sns  # slow to import, with pandas behind it, and needed only here

    sns.set_theme(
        style="ticks",
        font="DejaVu Sans",
        palette=[COLORS[k] for k in ("ddls", "dgflow", "dot", "mh", "drs", "cycle", "base")],
        rc={
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "figure.figsize": (WIDTH, 4.0),
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 14,
            "axes.labelsize": 13,
            "xtick.labelsize": 12,
            "ytick.labelsize": 12,
            "legend.fontsize": 12,
            "legend.frameon": False,
        },
    )


def color_of(method: str) -> str:
    """The colour of a method, found by the family that its name mentions; the base's if none."""
    name = method.lower()
    families = {"ula": "ddls", "mala": "ddls"}
    found = [k for k in ("cycle", *COLORS, *families) if k in name]
    key = found[0] if found else "base"
    return COLORS[families.get(key, key)]


def save(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG: all of it or nothing, the same bytes for the same figure.

    Raises:
        ValueError: path does not end in .png.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"Pictures are written as PNG: give a path that ends in .png, not {path}.")
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, png.getvalue())
    return path


def square_panels(
    rows: int, columns: int, *, title_lines: int = 1, legend: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure of the book's width, of equal squares that share their axes: (rows, columns).

    The margins are reckoned in inches: matplotlib's layout engines clip the titles of panels whose
    scales are equal.
    """
    left, right, top, bottom = 0.75, 0.1, 0.1 + 0.29 * title_lines, 0.95 if legend else 0.62
    across, down = 0.15, 0.1 + 0.29 * title_lines  # gaps between panels
    side = (WIDTH - left - right - (columns - 1) * across) / columns
    height = top + bottom + rows * side + (rows - 1) * down
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, height),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="none",
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1 - right / WIDTH,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": across / side,
            "hspace": down / side,
        },
    )
    plt.close(fig)  # pyplot would show it a second time
    return fig, axes


def square_limits(ax: Axes) -> None:
    """Widen the shorter of the two axes until both span as much."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y, half = (left + right) / 2, (bottom + top) / 2, max(right - left, top - bottom) / 2
    ax.set(xlim=(x - half, x + half), ylim=(y - half, y + half))


def plane(ax: Axes) -> Axes:
    """Make an Axes a picture of the plane: equal scales, a few ticks, both coordinates named."""
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def as_points(x: Points, name: str) -> np.ndarray:
    """Points as an array, finite and of shape (N, 2)."""
    x = as_array(x)
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"{name} must have shape (N, 2), not {x.shape}: pick two coordinates.")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinity: draw the finite points, and say so.")
    return x


def as_array(x: Points) -> np.ndarray:
    """A tensor on any device, or an array, as an array."""
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
