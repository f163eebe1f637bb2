"""Controls that chapters share: live in Jupyter, a still picture in the built book."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from matplotlib.figure import Figure


def turn(draw: Callable[..., Figure], **knobs: Iterable[Any]) -> None:
    """Show draw(**values) with a control for each keyword, or its first picture where no kernel listens.

    A page of the built book has no kernel, so a control there would be dead: the book's build sets
    LOGITFLOW_STILL=1 (book/_ext/still.py), and the reader sees the picture for the first values.

    Args:
        draw: makes a figure from one value of each knob, in under a second.
        knobs: for each keyword of draw the values to choose from, the one to begin with first.

    Raises:
        ValueError: a knob has no values.
    """
    from IPython.display import display
    from matplotlib import pyplot as plt

    choices = {name: list(values) for name, values in knobs.items()}
    for name, values in choices.items():
        if not values:
            raise ValueError(f"the knob {name} has no values to choose from")

    def show(**values: Any) -> None:
        figure = draw(**values)
        display(figure)
        plt.close(figure)

    if os.environ.get("LOGITFLOW_STILL"):
        show(**{name: values[0] for name, values in choices.items()})
        return
    import ipywidgets

    controls = {
        name: ipywidgets.SelectionSlider(
            options=_in_order(values),
            value=values[0],
            description=name,
            continuous_update=False,
        )
        for name, values in choices.items()
    }
    ipywidgets.interact(show, **controls)


def _in_order(values: list[Any]) -> list[Any]:
    try:
        return sorted(set(values))
    except TypeError:  # names and numbers mixed: keep the author's order
        return values
