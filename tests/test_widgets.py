"""Controls: live where a kernel listens, a still picture in the built book."""

import IPython.display
import ipywidgets
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from logitflow.widgets import turn


@pytest.fixture
def shown(monkeypatch):
    """What `turn` displays."""
    things = []
    monkeypatch.setattr(IPython.display, "display", things.append)
    return things


@pytest.fixture
def drawn():
    """The values of each picture drawn, and the function that draws them."""
    calls = []

    def draw(**values):
        calls.append(values)
        return plt.figure()

    return calls, draw


def test_the_book_shows_one_still_picture_of_the_first_values(monkeypatch, shown, drawn):
    monkeypatch.setenv("LOGITFLOW_STILL", "1")
    calls, draw = drawn
    assert turn(draw, eta=(0.3, 0.1, 0.9), name=iter(["kl", "js"])) is None
    assert calls == [{"eta": 0.3, "name": "kl"}]
    assert [type(thing) for thing in shown] == [Figure]
    assert plt.get_fignums() == []  # shown once, not again when the cell ends


def test_jupyter_shows_a_slider_for_each_knob_that_draws_anew(monkeypatch, shown, drawn):
    monkeypatch.delenv("LOGITFLOW_STILL", raising=False)
    calls, draw = drawn
    live = []
    interact = ipywidgets.interact
    monkeypatch.setattr(ipywidgets, "interact", lambda f, **c: live.append(c) or interact(f, **c))
    turn(draw, eta=[0.3, 0.1, 0.9], name=["kl", 2])
    (controls,) = live
    assert list(controls["eta"].options) == [0.1, 0.3, 0.9]  # in order along the slider
    assert list(controls["name"].options) == ["kl", 2]  # no order: as the author gave them
    assert calls[0] == {"eta": 0.3, "name": "kl"}  # the first value is where it begins
    controls["eta"].value = 0.9
    assert calls[-1] == {"eta": 0.9, "name": "kl"}
    assert plt.get_fignums() == []


@pytest.mark.parametrize("still", ["", "1"])
def test_a_knob_without_values_is_refused(monkeypatch, drawn, still):
    monkeypatch.setenv("LOGITFLOW_STILL", still)
    with pytest.raises(ValueError, match="the knob eta has no values to choose from"):
        turn(drawn[1], eta=[])
