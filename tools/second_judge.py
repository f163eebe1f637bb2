"""A second opinion on the table of images, by a judge that no label has taught.

python tools/second_judge.py --num-samples 1000 --out book/results

The table's judge is a classifier, and the discriminator of the pair it is about names classes: both know the
labels. This one looks with the discriminator of the zoo's other CIFAR-10 pair, which saw none of them nor an
image of this pair: the mean over the pixels of what its last convolution gives, 256 numbers an image.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from logitflow import zoo
from logitflow.files import write_atomically
from logitflow.metrics import evaluate_images, judge_against
from logitflow.metrics.images import Judge
from logitflow.reproduce import image_rows
from logitflow.reproduce.common import hardware, heading
from logitflow.reproduce.images import PAIR
from logitflow.reproduce.lab import open_lab
from logitflow.reproduce.table import Job, measure

OTHER = "cifar10-sn-resnet-small"
METHODS = (
    "DGflow (KL), preconditioned",
    "MH-GAN, β = 30, by class",
    "DDLS (ULA), β = 30, preconditioned, by class",
    "DGflow (KL), preconditioned, by class",
)
SEED = 100  # the table does not use it
FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall")


def main() -> None:
    """Draw the rows' images once more, fewer of them, and have both judges look."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-samples", type=int, default=1000, help="images a row")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for the JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lab = open_lab(PAIR)
    layers = zoo.load(OTHER).discriminator.layers
    assert isinstance(layers, nn.Sequential)
    features = nn.Sequential(layers[:-2], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    judges = {
        "with labels": lab.judge,
        "without labels": judge_against(lab.held_out, features, name="CIFAR-10 test images"),
    }

    def both(x: Tensor, _: Judge) -> dict[str, Any]:
        seen = {name: evaluate_images(x, judge) for name, judge in judges.items()}
        return {name: {f: float(s[f]) for f in FIGURES} for name, s in seen.items()}

    rows = [None, *(row for row in image_rows() if row.method in METHODS)]
    told = []
    for row in rows:
        (point,) = measure(lab, Job(row, SEED, options.num_samples), both, both)
        figures = {name: point[name] for name in judges}
        told.append({**heading(row), "figures": figures})
        print(told[-1]["method"], figures, flush=True)
    result = {
        "command": f"python tools/second_judge.py --num-samples {options.num_samples}",
        "hardware": hardware(),
        "pair": PAIR,
        "judge": {"pair": OTHER, "features": "mean over the pixels of the last convolution's"},
        "num_samples": options.num_samples,
        "rows": told,
    }
    content = json.dumps(result, indent=1, ensure_ascii=False).encode()
    write_atomically(options.out / "second-judge.json", content)


if __name__ == "__main__":
    main()
