"""Pictures of images: where each image lands, what is ringed and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from logitflow import plots
from logitflow.data import CIFAR10_CLASSES

pytestmark = pytest.mark.usefixtures("headless")


def plain(*values, side=4):
    """One plain image for each value in [−1, 1]."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, side, side)


def sheet(fig):
    (picture,) = fig.axes[0].get_images()
    return np.asarray(picture.get_array())


def test_a_grid_puts_images_row_by_row():
    array = sheet(plots.image_grid(plain(-1.0, 0.0, 1.0), columns=2))
    assert array.shape == (4 + 2 + 4, 4 + 2 + 4, 3)
    assert (array[:4, :4] == 0).all()
    assert (array[:4, 6:] == 128).all()
    assert (array[6:, :4] == 255).all()
    assert (array[4:6] == 255).all()  # the gap


def test_before_stands_above_after():
    before, after = plain(-1.0, -0.5, 0.0), plain(0.25, 0.5, 0.75)
    fig = plots.before_after_images(before, after, columns=2, labels=("b", "a"))
    array = sheet(fig)
    tops = (0, 6, 18, 24)  # 4 high, gaps of 2 within a pair and 8 between pairs
    assert array.shape[0] == 28
    found = [[int(array[top, left, 0]) for left in (0, 6)] for top in tops]
    assert found == [[0, 64], [159, 191], [128, 255], [223, 255]]  # white where no third pair is
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["b", "a", "b", "a"]
    assert fig.axes[0].get_yticks() == pytest.approx([top + 2 for top in tops])


def test_a_path_has_a_row_a_latent_and_a_column_a_step():
    frames = [plain(-1.0, 1.0), plain(0.0, 0.5), plain(0.25, -0.5)]
    fig = plots.path_of_images(frames, [0, 5, "25"])
    array = sheet(fig)
    found = [[int(array[top, left, 0]) for left in (0, 6, 12)] for top in (0, 6)]
    assert found == [[0, 128, 159], [255, 191, 64]]
    assert [label.get_text() for label in fig.axes[0].get_xticklabels()] == ["0", "5", "25"]


def test_what_lies_outside_is_clipped():
    assert (sheet(plots.image_grid(plain(3.0))) == 255).all()


def test_classes_are_drawn_in_their_order():
    even = dict.fromkeys(CIFAR10_CLASSES, 0.1)
    skewed = {name: {"mean": k / 45, "standard_error": 0.01} for k, name in enumerate(even)}
    ax = plots.class_histogram({"real": even, "DGflow": skewed}, ax=plt.subplots()[1])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CIFAR10_CLASSES)
    dots = [container.lines[0].get_xdata() for container in ax.containers]
    assert dots[0] == pytest.approx([10.0] * 10)
    assert dots[1] == pytest.approx([100 * k / 45 for k in range(10)])
    assert ax.containers[0].lines[0].get_color() != ax.containers[1].lines[0].get_color()


def curve(name, distances, scores):
    return {
        "method": name,
        "points": [
            {"work": 5.0 * k, "frechet_distance": d, "inception_score": s}
            for k, (d, s) in enumerate(zip(distances, scores, strict=True))
        ],
    }


def test_the_best_points_of_a_curve_are_ringed():
    curves = [curve("a", [3, 1, 2], [5, 6, 7]), curve("b", [4, 3, 2], [6, 8, 5])]
    real = {"frechet_distance": {"mean": 0.1}, "inception_score": {"mean": 9.0}}
    fig = plots.quality_curve(curves, real=real)
    bests = [[(5, 1), (10, 2)], [(10, 7), (5, 8)]]
    for ax, best, told in zip(fig.axes, bests, ("0.10", "9.00"), strict=True):
        lines = ax.get_lines()
        rings = [line for line in lines if line.get_fillstyle() == "none"]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == best
        assert [text.get_text() for text in ax.texts] == [f"real images: {told}"]
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert len(plots.quality_curve(curves).axes[0].get_lines()) == 4


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.image_grid(torch.zeros(0, 3, 4, 4)), "must hold images"),
        (lambda: plots.image_grid(torch.zeros(2, 1, 4, 4)), r"not \(2, 1, 4, 4\)"),
        (lambda: plots.image_grid(plain(float("nan"))), "NaN or infinity"),
        (lambda: plots.before_after_images(plain(0.0), plain(0.0, 1.0)), "the same latents"),
        (lambda: plots.path_of_images([plain(0.0)], [0, 1]), "as many steps as frames"),
        (lambda: plots.path_of_images([], []), "at least one"),
        (lambda: plots.moments_of_images([plain(0.0)], ["a", "b"]), "as many labels as frames"),
        (
            lambda: plots.path_of_images([plain(0.0), plain(0.0, 1.0)], [0, 1]),
            "their shapes differ",
        ),
        (lambda: plots.class_histogram({}, ax=plt.subplots()[1]), "at least one set"),
        (
            lambda: plots.class_histogram({"a": {"x": 1}, "b": {"y": 1}}, ax=plt.subplots()[1]),
            "the same classes",
        ),
        (lambda: plots.quality_curve([]), "at least one curve"),
        (lambda: plots.quality_curve([{"method": "a", "points": []}]), "at least one point"),
    ],
)
def test_refusals(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_figures_do_not_linger_in_pyplot():
    plots.image_grid(plain(0.0))
    plots.path_of_images([plain(0.0)], [0])
    plots.quality_curve([curve("a", [1], [2])])
    assert not plt.get_fignums()
