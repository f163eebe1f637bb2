"""Particles that move where the reader is: on a page with no kernel behind it, and in Jupyter.

The numbers are computed by live.js in the browser, from the weights that `export` writes down. The built book
gets the program and the weights inside the page, so that it also runs from a file and under any address;
Jupyter gets the same program through anywidget.
"""

import base64
import hashlib
import html
import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn
from torch.distributions import Uniform

from logitflow import plots, priors, zoo
from logitflow.data import twenty_five_gaussians
from logitflow.models import MLP
from logitflow.run import run, seeded_generator
from logitflow.samplers import gradient_flow
from logitflow.target import LatentTarget

PAIR = "25gaussians-wgan-gp-live"
"""The shipped pair that is small enough for a page."""


def export(pair: zoo.Pair) -> dict[str, Any]:
    """What the page needs of a pair on the 25 Gaussians, for JSON.

    Args:
        pair: MLPs 2-…-2 and 2-…-1 and a uniform prior on a square; the logit is the fitted discriminator's,
            where there is one.

    Returns:
        Each network's sizes and weights (base64 of little-endian float32: a layer's weight, row by row, then
        its bias), the prior's bounds, and the data's centres and standard deviation.

    Raises:
        ValueError: the pair is not as described.
    """
    prior, mixture = pair.prior, twenty_five_gaussians()
    if not (
        isinstance(prior, Uniform)
        and prior.low.unique().numel() == prior.high.unique().numel() == 1
    ):
        raise ValueError(
            "the page knows a uniform prior on a square only: give a pair that has one"
        )
    return {
        "generator": _layers(pair.generator, "generator"),
        "logit": _layers(pair.fitted or pair.discriminator, "discriminator"),
        "low": float(prior.low[0]),
        "high": float(prior.high[0]),
        "centers": mixture.centers.tolist(),
        "std": mixture.std,
    }


def show_refinement(pair: str | Path = PAIR, **start: str | float) -> None:
    """Show a pair's samples being refined in the browser, with controls.

    Args:
        pair: a name of the zoo or a folder.
        start: what the controls begin with: method ("ula", "mala", "dgflow", "dot" or "mh"), divergence,
            logStepSize (base 10), gamma, steps.
    """
    loaded, mixture = zoo.load(pair), twenty_five_gaussians()
    logit = loaded.fitted or loaded.discriminator
    target = LatentTarget(loaded.generator, logit, loaded.prior)
    z = priors.sample(loaded.prior, 2000, seeded_generator(0, 0))
    flow = gradient_flow(target, step_size=1e-4, gamma=0.1)
    after = run(flow, z, num_steps=50, generator=seeded_generator(0, 1)).z
    still = plots.before_after(
        target.generate(z), target.generate(after), centers=mixture.centers, std=mixture.std
    )
    about = (
        "A small generator's samples on the grid of 25 Gaussians, before refinement and after fifty steps of "
        "DGflow; more of the refined points lie on a mode."
    )
    _show("refinementView", {"pair": export(loaded), "start": start}, still, about)


def show_density(still: Figure, about: str, **start: str | float) -> None:
    """Show a potential's Fokker–Planck density beside its particles, computed in the browser, with controls.

    Args:
        still: what paper shows, and a page without scripts.
        about: the picture in words.
        start: what the controls begin with: potential, gamma, steps.
    """
    _show("densityView", {"start": start}, still, about)


def _layers(network: nn.Module, role: str) -> dict[str, Any]:
    if not isinstance(network, MLP) or network.settings["sizes"][0] != 2:
        raise ValueError(
            f"the page needs an MLP on the plane as {role}, not {type(network).__name__}"
        )
    values = torch.cat([p.detach().float().flatten() for p in network.parameters()])
    weights = base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
    return {"sizes": network.settings["sizes"], "weights": weights}


def source(view: str) -> str:
    """The JavaScript that shows a view: "refinementView" or "densityView"."""
    folder = Path(__file__).parent
    files = ["live.js"] if view == "refinementView" else ["live.js", "live_density.js"]
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in files)


def _show(view: str, data: dict[str, Any], still: Figure, about: str) -> None:
    from IPython.display import HTML, display

    if os.environ.get("LOGITFLOW_STILL"):
        display(HTML(page(view, data, still, about)))
    else:
        display(_widget(view, data))
    plt.close(still)


def page(view: str, data: dict[str, Any], still: Figure, about: str) -> str:
    """HTML that holds everything: the still picture, the program and its data.

    A module of its own file would not load from a file's address, so the program stands in the page.
    """
    png = io.BytesIO()
    still.savefig(png, format="png", metadata={"Software": None})
    picture = base64.b64encode(png.getvalue()).decode()
    written = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    name = "live-" + hashlib.sha256(f"{view} {written}".encode()).hexdigest()[:8]
    return (
        f'<div class="live" id="{name}" role="group" aria-label="Live experiment">\n'
        f'<img class="live-still" alt="{html.escape(about)}" src="data:image/png;base64,{picture}">\n'
        f'</div>\n<script type="module">\n{source(view)}\n'
        f'mount(document.getElementById("{name}"), {view}({written}));\n</script>'
    )


def _widget(view: str, data: dict[str, Any]) -> Any:
    import anywidget
    import traitlets

    class Live(anywidget.AnyWidget):
        _esm = (
            source(view) + "\nexport default { render: ({ model, el }) => "
            f'mount(el, {view}(model.get("data"))) }};\n'
        )
        data = traitlets.Dict().tag(sync=True)

    return Live(data=data)
