"""`logitflow train vae`, `flow` and `mmd-gan`: models without a discriminator of their own."""

import argparse
from typing import Any

from logitflow import recipes
from logitflow.cli_options import add_command, add_device, add_folder, count
from logitflow.commands import picture_of_toy, typed
from logitflow.device import choose
from logitflow.processes import is_first
from logitflow.reproduce import hardware

ABOUT = {
    "vae": "a variational autoencoder",
    "flow": "a normalising flow (RealNVP)",
    "mmd-gan": "an MMD-GAN, whose critic gives a vector,",
}
STEPS = {"vae": 8000, "flow": 6000, "mmd-gan": 6000}
FIT_STEPS = 6000


def add_beyond(subparsers: Any) -> None:
    """Add one command a model, each with the same options."""
    for model in recipes.MODELS:
        parser = add_command(
            subparsers,
            model,
            train_beyond,
            f"train {ABOUT[model]} on a two-dimensional toy or on CIFAR-10, then a corrector of the data's "
            "shipped GAN and a discriminator of its own (for CIFAR-10 one more, fitted along its flow)",
            f"logitflow train {model} --data 25gaussians --out my-{model}",
        )
        parser.set_defaults(model=model)
        add_folder(parser, "the model")
        parser.add_argument(
            "--data",
            choices=(*recipes.DATA_SETS, "cifar10"),
            required=True,
            help="what it should look like; LOGITFLOW_DATA or the network must provide CIFAR-10",
        )
        parser.add_argument(
            "--steps",
            type=count,
            help=f"training steps; not given: {STEPS[model]} for a toy, "
            f"{recipes.IMAGE_MODELS[model].num_steps} for CIFAR-10",
        )
        parser.add_argument(
            "--fit-steps",
            type=count,
            help=f"steps of fitting each of those two logits; not given: {FIT_STEPS} for a toy, "
            f"{recipes.FIT_STEPS} for CIFAR-10",
        )
        parser.add_argument(
            "--seed", type=count, default=0, help="of the weights, the data and the latents"
        )
        add_device(parser)


def train_beyond(options: argparse.Namespace) -> None:
    """Train a model and its logits, and picture its samples."""
    model, images = options.model, options.data == "cifar10"
    steps = recipes.IMAGE_MODELS[model].num_steps if images else STEPS[model]
    fit_steps = recipes.FIT_STEPS if images else FIT_STEPS
    steps = steps if options.steps is None else options.steps
    fit_steps = fit_steps if options.fit_steps is None else options.fit_steps
    settings = {"steps": steps, "fit_steps": fit_steps, "seed": options.seed}
    shared = {
        "num_steps": steps,
        "fit_steps": fit_steps,
        "seed": options.seed,
        "say": print,
        "command": typed("train", model, data=options.data, **settings),
    }
    if images:
        at = choose(options.device)
        recipes.train_beyond_images(
            model, options.out, device=options.device, hardware=hardware(at), **shared
        )
        picture = options.out / "samples.png"
    else:
        recipes.train_beyond(model, options.data, options.out, hardware=hardware(), **shared)
        if is_first():
            picture = picture_of_toy(options.data, options.out)
    if is_first():
        print(f"wrote {options.out} (the model, its logits, its card) and {picture}")
