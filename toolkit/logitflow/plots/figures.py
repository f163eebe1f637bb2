"""Whole figures, of several panels."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from .panels import samples
from .style import (
    COLORS,
    HIGH_QUALITY,
    LOW_QUALITY,
    NUM_STDS,
    REAL_BEHIND,
    WIDTH,
    Points,
    as_points,
    color_of,
    square_limits,
    square_panels,
)

# What `comparison` shows of each row: label, factor, scale of the axis.
PANELS = {
    "high_quality": ("high quality (%)", 100.0, "linear"),
    "energy_ratio": ("energy distance ÷ floor", 1.0, "log"),
    "log_likelihood": ("log-likelihood (nats)", 1.0, "symlog"),
    "frechet_distance": ("Fréchet distance", 1.0, "linear"),
    "inception_score": ("inception score", 1.0, "linear"),
    "precision": ("precision", 1.0, "linear"),
    "recall": ("recall", 1.0, "linear"),
    "js_4": ("JS-4 (nats)", 1.0, "linear"),
    "js_6": ("JS-6 (nats)", 1.0, "linear"),
    "word_share": ("known words (%)", 100.0, "linear"),
    "copied_share": ("verbatim copies (%)", 100.0, "linear"),
    "distinct_4": ("distinct 4-grams (%)", 100.0, "linear"),
    "distinct_6": ("distinct 6-grams (%)", 100.0, "linear"),
    "seconds": ("seconds", 1.0, "log"),
}


def before_after(
    before: Points,
    after: Points,
    *,
    centers: Points | None = None,
    std: float | None = None,
    real: Points | None = None,
    titles: tuple[str, str] = ("before", "after"),
    stats: tuple[str, str] | None = None,
) -> Figure:
    """The same latents' samples before and after refinement, side by side on the same axes.

    Args:
        before: samples, shape (N, 2).
        after: samples, shape (M, 2).
        centers: the modes' means, shape (K, 2); with `std`, colour tells high-quality samples.
        std: standard deviation of a mode.
        real: real samples drawn behind both, shape (R, 2).
        titles: of the two panels.
        stats: a line under each title; by default the share of high-quality samples, if known.

    Raises:
        ValueError: points are non-finite or of another shape.
    """
    known = centers is not None and std is not None
    fig, axes = square_panels(
        1, 2, title_lines=2 if known or stats else 1, legend=known or real is not None
    )
    for i, (ax, x) in enumerate(zip(axes.flat, (before, after), strict=True)):
        color: Any = HIGH_QUALITY
        line = stats[i] if stats else None
        if real is not None:
            samples(real, ax=ax, color=REAL_BEHIND)
        if centers is not None and std is not None:
            good = _high_quality(as_points(x, titles[i]), as_points(centers, "centers"), std)
            color = np.where(good, HIGH_QUALITY, LOW_QUALITY)
            line = line or f"{100 * good.mean():.1f}% high quality"
        samples(x, ax=ax, color=color, title=f"{titles[i]}\n{line}" if line else titles[i])
        ax.label_outer()
    square_limits(axes[0, 0])
    names = {f"within {NUM_STDS:g}σ of a centre": HIGH_QUALITY, "farther": LOW_QUALITY}
    if not known:
        names = {"samples": HIGH_QUALITY}
    if real is not None:
        names["real"] = REAL_BEHIND
    if len(names) > 1:
        dots = [Line2D([], [], ls="", marker="o", color=c, label=n) for n, c in names.items()]
        fig.legend(handles=dots, loc="lower center", ncols=3, handletextpad=0.1, borderpad=0.1)
    return fig


def grid_of_samples(
    panels: Sequence[tuple[str, Points]],
    *,
    centers: Points | None = None,
    std: float | None = None,
    columns: int = 3,
) -> Figure:
    """Small multiples of samples on the same axes, each under its title.

    Args:
        panels: pairs of a title and points of shape (N, 2).
        centers: the modes' means, shape (K, 2); with `std`, every mode is ringed at 4 std.
        std: standard deviation of a mode.
        columns: panels in a row.

    Raises:
        ValueError: there is no panel, or points are non-finite or of another shape.
    """
    if not panels:
        raise ValueError("Give at least one (title, points) pair to draw.")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    title_lines = 1 + max(title.count("\n") for title, _ in panels)
    fig, axes = square_panels(rows, columns, title_lines=title_lines)
    for ax, (title, x) in zip(axes.flat, panels, strict=False):
        samples(x, ax=ax, centers=centers, std=std, color=color_of(title))
        ax.set_title(title, fontsize=12)
        ax.label_outer()
    square_limits(axes[0, 0])
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    return fig


def comparison(result: dict[str, Any]) -> Figure:
    """Methods against what was measured of them: dots with standard-error bars.

    Args:
        result: what `logitflow reproduce` writes. ``result["rows"]`` is a list of ``{"method": str,
            "logit": str, "space": str, "metrics": {name: {"mean": float, "standard_error": float}}}``;
            logit and space may be left out, and high_quality is a fraction. A metric that no row
            has gets no panel, one that a row lacks no dot.

    Raises:
        ValueError: there are no rows, or none has a metric that is shown.
    """
    rows = result.get("rows", [])
    shown = [name for name in PANELS if any(_measured(row, name) for row in rows)]
    if not shown:
        raise ValueError(f"Nothing to draw: no row has one of the metrics {', '.join(PANELS)}.")
    columns = min(2, len(shown))
    tall = math.ceil(len(shown) / columns)
    names = [_name(row) for row in rows]
    apart = 0.37 if any("\n" in name for name in names) else 0.27  # inches: of two lines, or of one
    fig, axes = plt.subplots(
        tall,
        columns,
        figsize=(WIDTH, tall * (apart * len(rows) + 0.9)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    plt.close(fig)  # pyplot would show it a second time
    for ax, name in zip(axes.flat, shown, strict=False):
        label, factor, scale = PANELS[name]
        if scale == "symlog":
            ax.set_xscale(scale, linthresh=3, linscale=0.4)
        else:
            ax.set_xscale(scale)
        for y, row in enumerate(rows):
            if value := _measured(row, name):
                mean, error = (factor * v for v in value)
                # A bar that reaches zero has no end on a logarithmic axis: it is cut short.
                below = min(error, 0.9 * mean) if scale == "log" else error
                bar = {"xerr": [[below], [error]], "capsize": 4, "markersize": 5}
                ax.errorbar(mean, y, fmt="o", color=color_of(row["method"]), **bar)
        if name == "energy_ratio":
            ax.axvline(1, color=COLORS["real"], linestyle=":", linewidth=1.2)
        ax.set_yticks(range(len(rows)), names, fontsize=11, linespacing=0.9)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(axis="both", color="#e6e6e6", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.set_xlabel(label, fontsize=12)
        _few_ticks(ax, scale)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    for ax in fig.axes[1::2]:
        ax.tick_params(axis="y", labelleft=False, length=0)
    return fig


def _name(row: dict[str, Any]) -> str:
    """The method with its logit, and its space where that is not the usual one."""
    words = [row["method"], row.get("logit", "")]
    words.append("data" if row.get("space") == "data" else "")
    name = " · ".join(word for word in words if word)
    return name if len(name) < 36 else name.replace(" · ", "\n", 1)


def _few_ticks(ax: Axes, scale: str) -> None:
    """Plain numbers, and no more of them than half a phone's width holds."""
    if scale == "log":
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif scale == "symlog":
        close = [-100, -30, -10, -3, 0, 3]
        ticks = close if ax.get_xlim()[0] > -200 else [-10_000, -1000, -100, -10, 0]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _measured(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Mean and standard error of a row's metric; None where it has none."""
    value = row["metrics"].get(name)
    if value is None or value["mean"] is None or not math.isfinite(value["mean"]):
        return None
    return value["mean"], value.get("standard_error") or 0.0


def _high_quality(x: np.ndarray, centers: np.ndarray, std: float) -> np.ndarray:
    distances = np.linalg.norm(x[:, None] - centers, axis=2)
    return distances.min(axis=1) < NUM_STDS * std
