"""Pictures of text: what is marked, what is ringed, and what is refused."""

import re

import matplotlib.pyplot as plt
import pytest

from logitflow import plots

pytestmark = pytest.mark.usefixtures("headless")

MARK = re.compile(r"<mark[^>]*>(.*?)</mark>")


def test_what_changed_is_marked_and_nothing_else():
    shown = plots.before_after_text(["the cat", "a & b  "], ["the hat", "a < bcd"])
    html = shown._repr_html_()
    assert MARK.findall(html) == [
        "h",
        "&lt;",
        "cd",
    ]  # of the lines after, escaped; runs are one mark
    plain = re.sub("<[^>]*>", "|", html)
    assert len(re.findall(r"<code[^>]*>", html)) == 4  # where no formula is looked for
    for line in ("the cat", "the |", "a &amp; b  "):
        assert line in plain
    assert str(shown).splitlines() == [
        "before |the cat|",
        " after |the hat|",
        " " * 12 + "^",
        "",
        "before |a & b  |",
        " after |a < bcd|",
        " " * 10 + "^  ^^",
    ]


def test_marks_read_on_light_and_dark_pages():
    """Background and letters are both set, with a contrast of at least 7, and an underline says it too."""
    html = plots.before_after_text(["a"], ["b"])._repr_html_()
    (style,) = re.findall(r'<mark style="([^"]*)"', html)
    settings = dict(entry.split(":") for entry in style.split(";"))
    light, dark = (luminance(settings[key]) for key in ("background", "color"))
    assert (light + 0.05) / (dark + 0.05) > 7
    assert settings["text-decoration"] == "underline"


def luminance(color):
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_path_marks_what_differs_from_the_line_above():
    path = plots.path_of_text([["abc"], ["abd"], ["xbd"]], [0, 5, "25"])
    assert MARK.findall(path._repr_html_()) == ["d", "x"]
    assert str(path).splitlines() == [
        " 0 |abc|",
        " 5 |abd|",
        "      ^",
        "25 |xbd|",
        "    ^",
    ]


def curve(name, four, six):
    points = [
        {"steps": 5 * k, "js_4": a, "js_6": b}
        for k, (a, b) in enumerate(zip(four, six, strict=True))
    ]
    return {"method": name, "points": points}


def test_the_lowest_points_of_a_curve_are_ringed():
    curves = [curve("a", [0.3, 0.1, 0.2], [0.5, 0.6, 0.4]), curve("b", [0.4, 0.3, 0.2], [6, 5, 6])]
    real = {"js_4": {"mean": 0.05}, "js_6": {"mean": 0.2}}
    fig = plots.ngram_curve(curves, real=real)
    for ax, lowest, dotted in zip(
        fig.axes, [[(5, 0.1), (10, 0.2)], [(10, 0.4), (5, 5)]], (0.05, 0.2), strict=True
    ):
        lines = ax.get_lines()
        rings = [line for line in lines if line.get_fillstyle() == "none"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == lowest
        assert lines[-1].get_ydata()[0] == dotted
    (legend,) = fig.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["a", "b", "real text, as many windows"]
    assert len(plots.ngram_curve(curves, orders=(4,)).axes) == 1


def test_bars_stand_in_the_order_of_the_ngrams():
    sets = {
        "base": {f"js_{n}": 0.1 * n for n in range(1, 7)} | {"word_share": 0.5},
        "DGflow (KL)": {f"js_{n}": {"mean": 0.05 * n, "standard_error": 0.01} for n in range(1, 7)},
        "real": {f"js_{n}": {"mean": 0.02 * n, "standard_error": None} for n in range(1, 7)},
    }
    ax = plots.ngram_bars(sets, ax=plt.subplots()[1])
    groups = [group for group in ax.containers if hasattr(group, "patches")]
    bars = [[patch.get_height() for patch in group.patches] for group in groups]
    expected = [[factor * n for n in range(1, 7)] for factor in (0.1, 0.05, 0.02)]
    assert [pytest.approx(row) for row in expected] == bars
    assert [label.get_text() for label in ax.get_xticklabels()] == list("123456")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(sets)
    assert len({group.patches[0].get_facecolor() for group in groups}) == 3


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.path_of_text([], []), "at least one"),
        (lambda: plots.path_of_text([["a"]], [0, 1]), "as many labels as moments"),
        (lambda: plots.before_after_text(["a"], ["ab"]), "each as long as before"),
        (lambda: plots.before_after_text(["a"], ["a", "b"]), "the same latents' texts"),
        (lambda: plots.before_after_text([], []), "the same latents' texts"),
        (lambda: plots.ngram_curve([]), "at least one curve"),
        (lambda: plots.ngram_curve([{"method": "a", "points": []}]), "at least one point"),
        (lambda: plots.ngram_bars({}, ax=plt.subplots()[1]), "at least one set"),
        (
            lambda: plots.ngram_bars({"a": {"js_1": 0}}, ax=plt.subplots()[1], figure="distinct"),
            "distinct_1",
        ),
    ],
)
def test_refusals(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_figures_do_not_linger_in_pyplot():
    plots.ngram_curve([curve("a", [1], [2])])
    assert not plt.get_fignums()
