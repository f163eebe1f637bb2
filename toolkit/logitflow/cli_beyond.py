"""`logitflow train vae`, `flow` and `mmd-gan`: models without a discriminator of their own."""

import argparse
from typing import Any

from logitflow import recipes
from logitflow.cli_options import add_command, add_folder, count
from logitflow.commands import picture_of_toy, typed
from logitflow.processes import is_first
from logitflow.reproduce import hardware

ABOUT = {
    "vae": "a variational autoencoder",
    "flow": "a normalising flow (RealNVP)",
    "mmd-gan": "an MMD-GAN, whose critic gives a vector,",
}
STEPS = {"vae": 8000, "flow": 6000, "mmd-gan": 3000}


def add_beyond(subparsers: Any) -> None:
    """Add one command a model, each with the same options."""
    for model in recipes.MODELS:
        parser = add_command(
            subparsers,
            model,
            train_beyond,
            f"train {ABOUT[model]} on a two-dimensional toy, then a corrector of the toy's shipped GAN and a "
            "discriminator of its own",
            f"logitflow train {model} --data 25gaussians --out my-{model}",
        )
        parser.set_defaults(model=model)
        add_folder(parser, "the model")
        parser.add_argument(
            "--data", choices=recipes.DATA_SETS, required=True, help="what it should look like"
        )
        parser.add_argument("--steps", type=count, default=STEPS[model], help="training steps")
        parser.add_argument(
            "--fit-steps", type=count, default=6000, help="steps of fitting each of the two logits"
        )
        parser.add_argument(
            "--seed", type=count, default=0, help="of the weights, the data and the latents"
        )


def train_beyond(options: argparse.Namespace) -> None:
    """Train a model and its logits, and picture its samples."""
    settings = {"steps": options.steps, "fit_steps": options.fit_steps, "seed": options.seed}
    recipes.train_beyond(
        options.model,
        options.data,
        options.out,
        num_steps=options.steps,
        fit_steps=options.fit_steps,
        seed=options.seed,
        say=print,
        command=typed("train", options.model, data=options.data, **settings),
        hardware=hardware(),
    )
    if not is_first():
        return
    picture = picture_of_toy(options.data, options.out)
    print(f"wrote {options.out} (the model, its logits, its card) and {picture}")
