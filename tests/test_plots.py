"""Every picture draws without a warning, returns what it promises and leaves pyplot as it was."""

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from logitflow import plots

STD = 0.05
CENTERS = torch.cartesian_prod(torch.arange(-1.0, 2), torch.arange(-1.0, 2))
EXTENT = (-2.0, 2.0, -1.5, 1.5)


pytestmark = pytest.mark.usefixtures("headless")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def points(n=90, seed=0):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return CENTERS.repeat(n // 9, 1) + 3 * STD * x


def row(method, **metrics):
    as_json = {k: {"mean": m, "standard_error": s} for k, (m, s) in metrics.items()}
    return {"method": method, "metrics": as_json}


RESULT = {
    "rows": [
        row("base", high_quality=(0.4, 0.01), energy_ratio=(30, 2), log_likelihood=(-50, 3)),
        row("DDLS MALA", high_quality=(0.98, 0.002), energy_ratio=(1.1, 1.2), seconds=(3.0, 0.1)),
        row("a stranger", log_likelihood=(math.nan, 0), seconds=(30.0, 1)),
    ]
}


def log_normal(x):
    return -x.square().sum(dim=1) / 2


ON_AXES = {
    "samples": lambda ax: plots.samples(points(), ax=ax, title="t"),
    "rings": lambda ax: plots.samples(points(), ax=ax, centers=CENTERS, std=STD),
    "arrays": lambda ax: plots.samples(points().numpy(), ax=ax, color="red"),
    "gradients": lambda ax: plots.samples(points().requires_grad_(), ax=ax),
    "density": lambda ax: plots.density(log_normal, ax=ax, extent=EXTENT, num=20),
    "logit_map": lambda ax: plots.logit_map(lambda x: x[:, :1], ax=ax, extent=EXTENT, num=20),
    "vector_field": lambda ax: plots.vector_field(lambda x: -x, ax=ax, extent=EXTENT),
    "no_field": lambda ax: plots.vector_field(torch.zeros_like, ax=ax, extent=EXTENT),
    "paths": lambda ax: plots.paths(torch.stack([points(), points(seed=1)]), ax=ax),
    "histogram": lambda ax: plots.histogram(points()[:, 0], ax=ax, density=lambda t: torch.exp(-t)),
}
FIGURES = {
    "before_after": lambda: plots.before_after(points(), points(seed=1)),
    "quality": lambda: plots.before_after(points(), points(seed=1), centers=CENTERS, std=STD),
    "real": lambda: plots.before_after(
        points(), points(seed=1), real=points(seed=2), stats=("a", "b")
    ),
    "grid": lambda: plots.grid_of_samples([("a", points())] * 4, centers=CENTERS, std=STD),
    "grid_of_one": lambda: plots.grid_of_samples([("a", points())]),
    "comparison": lambda: plots.comparison(RESULT),
}


@pytest.mark.parametrize("draw", ON_AXES.values(), ids=ON_AXES)
def test_functions_draw_on_the_axes_given_and_return_it(draw, ax):
    settings, figures = dict(mpl.rcParams), plt.get_fignums()
    assert draw(ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    ax.figure.canvas.draw()
    assert dict(mpl.rcParams) == settings
    assert plt.get_fignums() == figures


@pytest.mark.parametrize("themed", [False, True])
@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_figures_are_returned_and_closed_and_no_text_is_cut_or_overlaps(draw, themed):
    if themed:
        plots.theme()
    settings = dict(mpl.rcParams)
    fig = draw()
    assert isinstance(fig, Figure)
    FigureCanvasAgg(fig).draw()  # closing took the canvas away
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == settings
    boxes = texts(fig)
    width, height = fig.canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for i, (text, box) in enumerate(boxes):
        for other, other_box in boxes[:i]:
            assert not box.overlaps(other_box), (text, other)


def texts(fig):
    """All visible text of a figure with its place, a little shrunk so that neighbours may touch."""
    found = [t for legend in fig.legends for t in legend.get_texts()]
    for ax in fig.axes:
        ticks = [t for axis in (ax.xaxis, ax.yaxis) for t in visible_ticks(axis)]
        found += [ax.title, ax.xaxis.label, ax.yaxis.label, *ticks]
    placed = [(t.get_text(), t.get_window_extent()) for t in found if t.get_visible()]
    return [(text, box.padded(-1)) for text, box in placed if text]


def visible_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1
        for tick in axis.get_major_ticks()
        if tick.label1.get_visible() and low <= tick.get_loc() <= high
    ]


def test_theme_is_the_one_that_changes_settings():
    before = dict(mpl.rcParams)
    plots.theme()
    assert mpl.rcParams["figure.constrained_layout.use"]
    assert mpl.rcParams["figure.facecolor"] == "white"
    assert mpl.rcParams["xtick.labelsize"] >= 12
    assert dict(mpl.rcParams) != before


def test_quality_is_told_by_colour_and_by_number():
    half = torch.cat([CENTERS + torch.tensor([r * STD, 0]) for r in (3.9, 4.1)])
    fig = plots.before_after(half, CENTERS, centers=CENTERS, std=STD, titles=("G", "flow"))
    left, right = fig.axes
    assert left.get_title() == "G\n50.0% high quality"
    assert right.get_title() == "flow\n100.0% high quality"
    assert len(np.unique(left.collections[0].get_facecolors(), axis=0)) == 2
    assert left.get_xlim() == right.get_xlim()


def test_comparison_shows_what_was_measured_and_nothing_else():
    fig = plots.comparison(RESULT)
    quality, energy, likelihood, seconds = fig.axes
    dots = {
        ax.get_xlabel(): [float(c.lines[0].get_xdata()[0]) for c in ax.containers]
        for ax in fig.axes
    }
    assert dots == {
        "high quality (%)": [40.0, 98.0],
        "energy distance ÷ floor": [30.0, 1.1],
        "log-likelihood (nats)": [-50.0],
        "seconds": [3.0, 30.0],
    }
    assert [t.get_text() for t in quality.get_yticklabels()] == ["base", "DDLS MALA", "a stranger"]
    assert energy.get_xscale() == seconds.get_xscale() == "log"
    assert energy.get_xlim()[0] > 0
    assert likelihood.get_xscale() == "symlog"


def test_comparison_leaves_out_a_panel_that_no_row_fills():
    fig = plots.comparison({"rows": [row("DOT", energy_ratio=(2, 0.1))]})
    assert [ax.get_xlabel() for ax in fig.axes] == ["energy distance ÷ floor"]


@pytest.mark.parametrize("result", [{}, {"rows": []}, {"rows": [row("base", modes=(25, 0))]}])
def test_comparison_of_nothing_is_refused(result):
    with pytest.raises(ValueError, match="Nothing to draw"):
        plots.comparison(result)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("cycle(MH-GAN, MALA)", "cycle"),
        ("DDLS (MALA, fitted logit)", "ddls"),
        ("MALA", "ddls"),
        ("DGflow KL", "dgflow"),
        ("DOT (latent)", "dot"),
        ("MH-GAN", "mh"),
        ("DRS", "drs"),
        ("real", "real"),
        ("generator", "base"),
    ],
)
def test_methods_keep_their_colours(method, family):
    assert plots.color_of(method) == plots.COLORS[family]


def test_colours_are_distinct():
    assert len(set(plots.COLORS.values())) == len(plots.COLORS)


def test_density_is_drawn_the_right_way_up(ax):
    plots.density(lambda x: -(x - torch.tensor([1.0, -1.0])).square().sum(1), ax=ax, extent=EXTENT)
    image = ax.images[0]
    y, x = np.unravel_index(image.get_array().argmax(), image.get_array().shape)
    left, right, bottom, top = image.get_extent()
    assert left + (right - left) * x / 199 == pytest.approx(1, abs=0.02)
    assert bottom + (top - bottom) * y / 199 == pytest.approx(-1, abs=0.02)


def test_arrows_point_along_the_field(ax):
    plots.vector_field(lambda x: torch.stack([x[:, 1], -x[:, 0]], dim=1), ax=ax, extent=EXTENT)
    arrows = ax.collections[0]
    np.testing.assert_allclose(arrows.U, arrows.XY[:, 1])
    np.testing.assert_allclose(arrows.V, -arrows.XY[:, 0])


def test_histogram_has_area_one(ax):
    plots.histogram(torch.arange(100.0), ax=ax, bins=7)
    assert sum(p.get_height() * p.get_width() for p in ax.patches) == pytest.approx(1)


WITH_NAN = torch.tensor([[0.0, math.nan]])
REFUSED = {
    "columns": (lambda ax: plots.samples(torch.zeros(4, 3), ax=ax), r"shape \(N, 2\)"),
    "vector": (lambda ax: plots.samples(torch.zeros(4), ax=ax), r"shape \(N, 2\)"),
    "nan": (lambda ax: plots.samples(WITH_NAN, ax=ax), "NaN"),
    "centers": (lambda ax: plots.samples(points(), ax=ax, centers=[0, 1], std=1.0), "centers"),
    "paths": (lambda ax: plots.paths(points(), ax=ax), r"\(T, N, 2\)"),
    "nan_path": (lambda ax: plots.paths(WITH_NAN[None], ax=ax), "NaN"),
    "field": (lambda ax: plots.vector_field(lambda x: x[:, 0], ax=ax, extent=EXTENT), "field"),
    "density": (lambda ax: plots.density(lambda x: x, ax=ax, extent=EXTENT), "a number for each"),
    "nan_density": (
        lambda ax: plots.density(lambda x: x[:, 0].log() * 0, ax=ax, extent=EXTENT),
        "no NaN",
    ),
    "histogram": (lambda ax: plots.histogram(points(), ax=ax), r"shape \(N,\)"),
    "no_values": (lambda ax: plots.histogram(torch.zeros(0), ax=ax), r"shape \(N,\)"),
    "before": (lambda _: plots.before_after(torch.zeros(4, 3), points()), r"shape \(N, 2\)"),
    "no_panel": (lambda _: plots.grid_of_samples([]), "at least one"),
}


@pytest.mark.parametrize(("draw", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(draw, says, ax):
    with pytest.raises(ValueError, match=says):
        draw(ax)


def test_save_writes_the_same_whole_png_again(tmp_path):
    first = plots.save(FIGURES["quality"](), tmp_path / "new folder" / "a.png")
    again = plots.save(FIGURES["quality"](), str(tmp_path / "b.png"))
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in first.parent.iterdir()] == ["a.png"]


def test_save_keeps_the_old_picture_when_drawing_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    fig = FIGURES["before_after"]()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(fig, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save(fig, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_refuses_another_format(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.png"):
        plots.save(FIGURES["before_after"](), tmp_path / "a.jpg")
