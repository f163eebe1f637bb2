"""Pictures of text: what refinement changed, and n-grams against steps and against real text."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import COLORS, MARKS, WIDTH, color_of

# Both colours are set, so that a mark reads the same on a light page and on a dark one; the line below it
# tells it without colour.
_MARK = "background:#ffd58a;color:#1a1a1a;text-decoration:underline;padding:0;margin:0"
_TABLE = "font-family:monospace;font-size:0.85rem;border-collapse:collapse;width:auto;margin:0"
_LABEL = "text-align:right;font-weight:normal;padding:0 0.8em 0 0;border:none"
_LINE = "text-align:left;padding:0;border:none"
# a page's rules for code are meant for code; but only in code does MathJax leave a dollar alone
_CODE = "white-space:pre;font-size:inherit;color:inherit;background:none;border:none;padding:0"


class TextPath(NamedTuple):
    """The same latents' texts at several moments: shown as HTML in a notebook, as lines in a terminal."""

    frames: tuple[tuple[str, ...], ...]  # at each moment, one text a latent
    labels: tuple[str, ...]  # one a moment

    def _repr_html_(self) -> str:
        rows = []
        for lines in zip(*self.frames, strict=True):
            for k, (label, line) in enumerate(zip(self.labels, lines, strict=True)):
                gap = "" if k else ";padding-top:0.6em"
                rows.append(
                    f'<tr><th scope="row" style="{_LABEL}{gap}">{escape(label)}</th>'
                    f'<td style="{_LINE}{gap}"><code style="{_CODE}">'
                    f"{_marked(lines[max(k - 1, 0)], line)}</code></td></tr>"
                )
        return (
            f'<div style="overflow-x:auto"><table style="{_TABLE}">'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def __str__(self) -> str:
        """Each latent's lines one below the other, a caret below each character that changed."""
        width = max(map(len, self.labels))
        blocks = []
        for lines in zip(*self.frames, strict=True):
            block = [f"{self.labels[0]:>{width}} |{lines[0]}|"]
            for label, last, line in zip(self.labels[1:], lines, lines[1:], strict=False):
                carets = "".join("^" if new else " " for new in _changed(last, line))
                block += [f"{label:>{width}} |{line}|", f"{'':{width}}  {carets}".rstrip()]
            blocks.append("\n".join(block).rstrip())
        return "\n\n".join(blocks)

    def __repr__(self) -> str:
        return str(self)


def path_of_text(frames: Sequence[Sequence[str]], labels: Sequence[Any]) -> TextPath:
    """How texts change: a block a latent, a line a moment, marked where it differs from the line above.

    Args:
        frames: at each moment, one text a latent, all of one length.
        labels: what stands before each moment's line, such as the number of steps.

    Raises:
        ValueError: there is no text, or there are not as many labels as moments, or lengths differ.
    """
    if not len(frames) or len(frames) != len(labels):
        raise ValueError(
            f"give as many labels as moments, at least one, not {len(labels)} and {len(frames)}."
        )
    if not len(frames[0]) or len({tuple(map(len, texts)) for texts in frames}) > 1:
        raise ValueError("every moment needs the same latents' texts, each as long as before.")
    return TextPath(tuple(map(tuple, frames)), tuple(map(str, labels)))


def before_after_text(before: Sequence[str], after: Sequence[str]) -> TextPath:
    """The same latents' texts before and after refinement, one above the other, changes marked.

    Raises:
        ValueError: there is no text, or the two differ in number or length.
    """
    return path_of_text([before, after], ("before", "after"))


def _changed(last: str, line: str) -> list[bool]:
    return [a != b for a, b in zip(last, line, strict=True)]


def _marked(last: str, line: str) -> str:
    pieces = []
    for new, group in groupby(
        zip(_changed(last, line), line, strict=True), key=lambda pair: pair[0]
    ):
        piece = escape("".join(character for _, character in group))
        pieces.append(f'<mark style="{_MARK}">{piece}</mark>' if new else piece)
    return "".join(pieces)


def ngram_curve(
    curves: Sequence[Mapping[str, Any]],
    *,
    real: Mapping[str, Any] | None = None,
    orders: Sequence[int] = (4, 6),
) -> Figure:
    """JS of n-grams against steps; each curve's lowest point is ringed.

    Args:
        curves: each with "method" and "points", of which each has "steps" and "js_4", "js_6" or others:
            what `logitflow reproduce text` writes as "curves".
        real: the figures of as many real windows, drawn as dotted lines: its "real_of_curves".
        orders: the n of the panels, one above the other.

    Raises:
        ValueError: there is no curve, or one has no points.
    """
    if not curves or not all(curve["points"] for curve in curves):
        raise ValueError("give at least one curve, each with at least one point.")
    size = (WIDTH, 2.6 * len(orders) + 1.4)
    fig, axes = plt.subplots(
        len(orders), 1, figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    plt.close(fig)  # pyplot would show it a second time
    for ax, n in zip(axes[:, 0], orders, strict=True):
        for i, curve in enumerate(curves):
            x = [point["steps"] for point in curve["points"]]
            y = [point[f"js_{n}"] for point in curve["points"]]
            look: dict[str, Any] = {"color": f"C{i}", "marker": MARKS[i % len(MARKS)]}
            ax.plot(x, y, markersize=4, linewidth=1.4, label=curve["method"], **look)
            k = int(np.argmin(y))
            ax.plot(x[k], y[k], "o", markersize=11, fillstyle="none", color=f"C{i}")
        if real is not None:
            label = "real text, as many windows"
            floor = real[f"js_{n}"]["mean"]
            ax.axhline(floor, color=COLORS["real"], linestyle=":", linewidth=1.2, label=label)
        ax.set_ylabel(f"JS-{n} (nats)")
        ax.grid(color="#e6e6e6", linewidth=0.8)
    axes[-1, 0].set_xlabel("steps")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=1)
    return fig


def ngram_bars(sets: Mapping[str, Mapping[str, Any]], *, ax: Axes, figure: str = "js") -> Axes:
    """A figure of n-grams for each n and each set of texts, with standard-error bars.

    Args:
        sets: for each set's name its figures "js_1" … or "distinct_1" …, as numbers or as
            ``{"mean", "standard_error"}``, such as a row's "metrics" in what `logitflow reproduce text` writes.
        ax: where to draw.
        figure: "js" or "distinct".

    Raises:
        ValueError: there is no set, or one lacks the figure.
    """
    orders = [n for n in range(1, 10) if sets and all(f"{figure}_{n}" in s for s in sets.values())]
    if not orders:
        raise ValueError(f"give at least one set, each with {figure}_1 or a longer n-gram's.")
    width = 0.8 / len(sets)
    for i, (name, figures) in enumerate(sets.items()):
        values = [figures[f"{figure}_{n}"] for n in orders]
        values = [v if isinstance(v, Mapping) else {"mean": v} for v in values]
        ax.bar(
            np.arange(len(orders)) + (i + 0.5) * width - 0.4,
            [v["mean"] for v in values],
            width,
            yerr=[v.get("standard_error") or 0.0 for v in values],
            color=COLORS["real"] if name == "real" else color_of(name),
            label=name,
            capsize=2,
            edgecolor="white",
        )
    ax.set_xticks(range(len(orders)), map(str, orders))
    ax.set_xlabel("characters of the n-gram")
    ax.set_ylabel({"js": "JS (nats)", "distinct": "distinct n-grams (share)"}[figure])
    ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend()
    return ax
