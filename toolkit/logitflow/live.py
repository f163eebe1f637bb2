"""Particles, images and texts that move where the reader is: on a page without a kernel, and in Jupyter.

Particles are computed by live.js in the browser, from the weights that `export` writes down; images and texts
beforehand, from frames. The built book gets the program and its data inside the page, so that it also runs
from a file and under any address; Jupyter gets the same program through anywidget.
"""

import base64
import hashlib
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Uniform

from logitflow import plots, priors, zoo
from logitflow.data import twenty_five_gaussians
from logitflow.data.images import png_grid
from logitflow.models import MLP
from logitflow.plots.text import TextPath
from logitflow.run import run, seeded_generator
from logitflow.samplers import gradient_flow
from logitflow.target import LatentTarget

PAIR = "25gaussians-wgan-gp-live"
"""The shipped pair that is small enough for a page."""
FILES: dict[str, list[str]] = {
    "refinementView": [],
    "densityView": ["live_density.js"],
    "pathView": ["live_path.js"],
}
"""What each view needs beside live.js."""


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


def show_images(frames: Sequence[Tensor], figures: Sequence[Mapping[str, str]], about: str) -> None:
    """Show the same latents' images step by step, with a slider and a button that plays them.

    Args:
        frames: at each step images, (N, 3, H, H) in [−1, 1].
        figures: for each frame what stands beside it, names and values; the first is the slider's own, such as
            ``{"Step": "3 of 25", "Mean logit": "−1.20"}``.
        about: the picture in words.

    Raises:
        ValueError: there are fewer than two frames, or not as many figures, or frames differ in shape.
    """
    few, labels = _ends(frames, figures)
    still = plots.moments_of_images(few, labels)
    sheet = base64.b64encode(png_grid(torch.cat(list(frames)), columns=len(frames[0]))).decode()
    images = {"png": sheet, "size": frames[0].shape[3], "count": len(frames[0])}
    told = {
        "figures": list(map(dict, figures)),
        "label": about,
        "key": "One picture a latent, the same ones at every step.",
    }
    _show("pathView", {"images": images, **told}, still, about)


def show_texts(
    frames: Sequence[Sequence[str]], figures: Sequence[Mapping[str, str]], about: str
) -> None:
    """Show the same latents' texts step by step, with a slider and a button that plays them.

    Args:
        frames: at each step the texts, all of one length; characters that differ from the first step's are
            marked.
        figures: as for `show_images`.
        about: the picture in words.

    Raises:
        ValueError: there are fewer than two frames, or not as many figures, or texts differ in length.
    """
    few, labels = _ends(frames, figures)
    plots.path_of_text(frames, range(len(frames)))  # which looks at every frame
    key = "One line a latent. Marked: what differs from the first step."
    told = {"figures": list(map(dict, figures)), "label": about, "key": key}
    _show(
        "pathView",
        {"texts": list(map(list, frames)), **told},
        plots.path_of_text(few, labels),
        about,
    )


def _ends(
    frames: Sequence[Any], figures: Sequence[Mapping[str, str]]
) -> tuple[list[Any], list[str]]:
    """The first, a middle and the last frame, and their labels."""
    if not 2 <= len(frames) == len(figures):
        raise ValueError(
            f"give at least two frames, and figures for each: not {len(frames)} and {len(figures)}"
        )
    ends = (0, len(frames) // 2, -1)
    return [frames[k] for k in ends], [next(iter(figures[k].values())) for k in ends]


def _layers(network: nn.Module, role: str) -> dict[str, Any]:
    if not isinstance(network, MLP) or network.settings["sizes"][0] != 2:
        raise ValueError(
            f"the page needs an MLP on the plane as {role}, not {type(network).__name__}"
        )
    values = torch.cat([p.detach().float().flatten() for p in network.parameters()])
    weights = base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
    return {"sizes": network.settings["sizes"], "weights": weights}


def source(view: str) -> str:
    """The JavaScript that shows a view, one of `FILES`."""
    names = ["live.js", *FILES[view]]
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


def _show(view: str, data: dict[str, Any], still: Figure | TextPath, about: str) -> None:
    from IPython.display import HTML, display

    if os.environ.get("LOGITFLOW_STILL"):
        display(HTML(page(view, data, still, about)))
    else:
        display(_widget(view, data))
    if isinstance(still, Figure):
        plt.close(still)


def page(view: str, data: dict[str, Any], still: Figure | TextPath, about: str) -> str:
    """HTML that holds everything: the still picture, the program and its data.

    A module of its own file would not load from a file's address, so the program stands in the page.
    """
    written = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    name = "live-" + hashlib.sha256(f"{view} {written}".encode()).hexdigest()[:8]
    return (
        f'<div class="live" id="{name}" role="group" aria-label="Live experiment">\n'
        f"{_still(still, about)}\n"
        f'</div>\n<script type="module">\n{source(view)}\n'
        f'mount(document.getElementById("{name}"), {view}({written}));\n</script>'
    )


def _still(still: Figure | TextPath, about: str) -> str:
    if not isinstance(still, Figure):  # text can be read as it is
        return f'<div class="live-still">{still._repr_html_()}</div>'
    png = io.BytesIO()
    still.savefig(png, format="png", metadata={"Software": None})
    picture = base64.b64encode(png.getvalue()).decode()
    return (
        f'<img class="live-still" alt="{html.escape(about)}" src="data:image/png;base64,{picture}">'
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
