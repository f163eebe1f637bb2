"""Pictures of images: grids, the same latents before and after, paths, and what refinement did to them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from logitflow.data.images import to_bytes

from .style import COLORS, MARKS, WIDTH, color_of

_GAP = 2  # white pixels between images
_BLOCK = 8  # and between pairs of rows
_TICKS = (0, 2, 5, 10, 25, 50, 100, 250, 1000)  # of gradient evaluations


def image_grid(x: torch.Tensor, columns: int = 8) -> Figure:
    """Images side by side, row by row.

    Args:
        x: images, shape (N, 3, H, W), in [−1, 1]; what lies outside is clipped.
        columns: images in a row.

    Raises:
        ValueError: x holds no image, or is of another shape, or not finite.
    """
    _check(x, "x")
    columns = min(columns, len(x))
    rows = [[x[i : i + columns]] for i in range(0, len(x), columns)]
    fig, ax, _ = _sheet([row for (row,) in rows], gap=_GAP)
    ax.axis("off")
    return fig


def before_after_images(
    before: torch.Tensor,
    after: torch.Tensor,
    *,
    labels: tuple[str, str] = ("before", "after"),
    columns: int = 8,
) -> Figure:
    """The same latents' images before and after refinement, each above the other.

    Args:
        before: images, shape (N, 3, H, W), in [−1, 1].
        after: as many, in the same order.
        labels: what stands at the left of each row.
        columns: latents in a row.

    Raises:
        ValueError: the two differ in shape, or hold no image, or are not finite.
    """
    _check(before, "before")
    _check(after, "after")
    if before.shape != after.shape:
        raise ValueError(
            f"before and after must be of the same latents, not of shapes {tuple(before.shape)} and "
            f"{tuple(after.shape)}."
        )
    return moments_of_images((before, after), labels, columns=columns)


def moments_of_images(
    frames: Sequence[torch.Tensor], labels: Sequence[str], *, columns: int = 8
) -> Figure:
    """The same latents' images at a few moments, one above the other.

    Args:
        frames: images at each moment, each of shape (N, 3, H, W), in [−1, 1].
        labels: what stands at the left of each row.
        columns: latents in a row.

    Raises:
        ValueError: there is no frame, frames differ in shape, or there are not as many labels.
    """
    _check_frames(frames, len(labels), "labels")
    columns = min(columns, len(frames[0]))
    starts = range(0, len(frames[0]), columns)
    rows = [x[i : i + columns] for i in starts for x in frames]
    fig, ax, middles = _sheet(rows, gap=_GAP, block=len(frames))
    ax.set_yticks(middles, list(labels) * len(starts), rotation=90, va="center")
    return fig


def path_of_images(
    frames: Sequence[torch.Tensor], steps: Sequence[int | str], *, label: str = "steps"
) -> Figure:
    """How images change: one row a latent, one column a step.

    Args:
        frames: images at each step, each of shape (N, 3, H, W), in [−1, 1].
        steps: what stands above each column.
        label: what the steps count.

    Raises:
        ValueError: there is no frame, frames differ in shape, or there are not as many steps.
    """
    _check_frames(frames, len(steps), "steps")
    rows = list(torch.stack(list(frames), 1))  # N of (T, 3, H, W)
    fig, ax, _ = _sheet(rows, gap=_GAP)
    width = rows[0].shape[3]
    middles = [(k + 0.5) * width + k * _GAP for k in range(len(steps))]
    ax.set_xticks(middles, [str(step) for step in steps])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(label)
    return fig


def class_histogram(shares: Mapping[str, Mapping[str, Any]], *, ax: Axes) -> Axes:
    """The share of each class among several sets of images, as dots with standard-error bars.

    Args:
        shares: for each set's name the classes' shares, as numbers or as ``{"mean", "standard_error"}``,
            such as ``row["classes"]`` of what `logitflow reproduce cifar10` writes. The dotted line is an
            even share.
        ax: where to draw.

    Raises:
        ValueError: there is no set, or one names other classes than the first.
    """
    names = [list(classes) for classes in shares.values()]
    if not names or not names[0] or any(classes != names[0] for classes in names):
        raise ValueError("give at least one set, and the same classes in each.")
    offsets = np.linspace(-0.25, 0.25, len(names)) if len(names) > 1 else [0.0]
    for i, (name, classes) in enumerate(shares.items()):
        values = [v if isinstance(v, Mapping) else {"mean": v} for v in classes.values()]
        ax.errorbar(
            [100 * v["mean"] for v in values],
            np.arange(len(values)) + offsets[i],
            xerr=[100 * (v.get("standard_error") or 0.0) for v in values],
            fmt=MARKS[i % len(MARKS)],
            color=color_of(name),
            label=name,
            markersize=5,
            capsize=3,
        )
    ax.axvline(100 / len(names[0]), color=COLORS["real"], linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(names[0])), names[0])
    ax.set_ylim(len(names[0]) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("share of images (%)")
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def quality_curve(
    curves: Sequence[Mapping[str, Any]], *, real: Mapping[str, Any] | None = None
) -> Figure:
    """Fréchet distance and inception score against the work they take; each curve's best point is ringed.

    Args:
        curves: each with "method" and "points", of which each has "work" in gradient evaluations,
            "frechet_distance" and "inception_score": what `logitflow reproduce cifar10` writes as "curves".
        real: the figures of real images, told in a corner: its "real_of_curves".

    Raises:
        ValueError: there is no curve, or one has no points.
    """
    if not curves or not all(curve["points"] for curve in curves):
        raise ValueError("give at least one curve, each with at least one point.")
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 7.2), sharex=True, layout="constrained")
    plt.close(fig)  # pyplot would show it a second time
    longest = max(curve["points"][-1]["work"] for curve in curves)
    panels = {
        "frechet_distance": ("Fréchet distance", min),
        "inception_score": ("inception score", max),
    }
    for ax, (figure, (label, best)) in zip(axes, panels.items(), strict=True):
        for i, curve in enumerate(curves):
            x = [point["work"] for point in curve["points"]]
            y = [point[figure] for point in curve["points"]]
            look: dict[str, Any] = {"color": f"C{i}", "marker": MARKS[i % len(MARKS)]}
            look["linestyle"] = ("-", "--", ":")[i // 7 % 3]  # the palette has seven colours
            ax.plot(x, y, markersize=4, linewidth=1.4, label=curve["method"], **look)
            k = y.index(best(y))
            ax.plot(x[k], y[k], "o", markersize=11, fillstyle="none", color=f"C{i}")
        if real is not None:  # a line of theirs would be far off the others
            height, side = (0.95, "top") if best is min else (0.05, "bottom")
            text = f"real images: {real[figure]['mean']:.2f}"
            where = {"transform": ax.transAxes, "ha": "right", "va": side}
            ax.text(0.98, height, text, fontsize="small", **where)
        ax.set_ylabel(label)
        ax.grid(color="#e6e6e6", linewidth=0.8)
    # the first steps change most: linear up to ten of them, logarithmic beyond
    axes[1].set_xscale("symlog", linthresh=10)
    axes[1].set_xlim(-0.5, 1.25 * longest)
    axes[1].set_xticks([t for t in _TICKS if t <= max(longest, 10)])
    axes[1].xaxis.set_major_formatter("{x:g}")
    axes[1].set_xlabel("work a sample, in gradient evaluations")
    handles, _ = axes[0].get_legend_handles_labels()
    fig.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return fig


def _sheet(
    rows: Sequence[torch.Tensor], *, gap: int, block: int = 1
) -> tuple[Figure, Axes, list[float]]:
    """One Axes with rows of images, each (C, 3, H, W), and the middles of its rows."""
    columns = max(len(row) for row in rows)
    _, _, height, width = rows[0].shape
    tops, top = [], 0
    for r in range(len(rows)):
        tops.append(top)
        top += height + (gap if block == 1 or (r + 1) % block else _BLOCK)
    sheet = np.full((tops[-1] + height, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for row, y in zip(rows, tops, strict=True):
        for c, picture in enumerate(to_bytes(row.detach().float().cpu()).permute(0, 2, 3, 1)):
            left = c * (width + gap)
            sheet[y : y + height, left : left + width] = picture.numpy()
    ratio = sheet.shape[0] / sheet.shape[1]
    fig, ax = plt.subplots(figsize=(WIDTH, WIDTH * ratio + 0.1), layout="constrained")
    plt.close(fig)
    ax.imshow(sheet, extent=(0, sheet.shape[1], sheet.shape[0], 0))
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return fig, ax, [y + height / 2 for y in tops]


def _check(x: torch.Tensor, name: str) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or not len(x):
        raise ValueError(f"{name} must hold images of shape (N, 3, H, W), not {tuple(x.shape)}.")
    if not math.isfinite(float(x.detach().float().sum())):
        raise ValueError(f"{name} holds NaN or infinity: draw the finite images, and say so.")


def _check_frames(frames: Sequence[torch.Tensor], count: int, name: str) -> None:
    if not len(frames) or len(frames) != count:
        raise ValueError(
            f"give as many {name} as frames, at least one, not {count} and {len(frames)}."
        )
    for frame in frames:
        _check(frame, "a frame")
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("all frames must be of the same latents: their shapes differ.")
