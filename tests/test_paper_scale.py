"""A script for a machine that is lent for minutes, at toy size: each stage, in slices, and a pack that fits."""

import gc
import importlib.util
import itertools
import json
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_data_images import compressed, pictures, root, write  # noqa: F401

from logitflow import cli, cli_bench, recipes
from logitflow.models import DCGANDiscriminator, ResNetGenerator, TextCritic, TextGenerator

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("paper_scale", ROOT / "tools" / "paper_scale.py")
paper_scale = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(paper_scale)

TINY = {"batch_size": 4, "learning_rate": 1e-3, "betas": (0.0, 0.9), "discriminator_steps": 1}


@pytest.fixture
def toy_size(root, monkeypatch):  # noqa: F811
    """Data of six pictures and six sentences, and presets of networks a few channels wide."""
    for split in ("train", "test"):
        columns = {"img": [compressed(p) for p in pictures()], "label": [3, 1, 4, 1, 5, 9]}
        write(root, f"cifar10/{split}.parquet", **columns)
        text = "\n".join(f"The {n} of them stood there and waited for it ." for n in range(6))
        path = root / "lm1b" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    images = recipes.PRESETS["paper"]._replace(
        networks=lambda: (ResNetGenerator(8), DCGANDiscriminator(8)), settings=TINY
    )
    text = recipes.TEXT_PRESETS["paper"]._replace(
        networks=lambda: (TextGenerator(8), TextCritic(8)), settings=TINY
    )
    monkeypatch.setitem(recipes.PRESETS, "paper", images)
    monkeypatch.setitem(recipes.TEXT_PRESETS, "paper", text)
    tiny = {"tiny": (ResNetGenerator(8).eval(), DCGANDiscriminator(8).eval())}
    monkeypatch.setattr(cli_bench, "pairs", lambda: tiny)
    make = paper_scale.stages

    def stages(*arguments):  # as at full size, except for the bench's long stage
        *others, (words, made) = make(*arguments)
        if words[0] == "bench":
            words = ["bench", "--batch-size", "2", "--growth", "1", "--repeats", "1", *words[-2:]]
            words.append("--no-compile")
        return [*others, paper_scale.Stage(words, made)]

    monkeypatch.setattr(paper_scale, "stages", stages)
    return root


def a_slice(out, minutes=9.0, what=("cifar10", "text", "bench")):
    words = ["run", "--minutes", minutes, "--out", out, "--num-samples", 8]
    words += ["--steps", 2, "--fit-steps", 1, "--what", *what]
    return paper_scale.main([str(word) for word in words])


def test_every_stage_is_done_and_done_once(toy_size, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    gc.disable()  # Hypothesis listens to the collector, and an interrupt that falls in there is lost
    try:
        assert a_slice(out, minutes=1e-4) == 130  # six milliseconds
    finally:
        gc.enable()
    ended = itertools.count()

    def interrupted(words):
        """As a slice that is over in the third of its stages."""
        return 130 if next(ended) == 2 else cli_main(words)

    cli_main = cli.main
    monkeypatch.setattr(cli, "main", interrupted)
    assert a_slice(out) == 130
    assert not (out / "cifar10.json").exists()
    done = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert a_slice(out) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing is made again
    for name, shape in (("cifar10", (8, 3, 32, 32)), ("text", (8, 32, 96))):
        assert load_file(out / f"{name}-refined" / "samples.safetensors")["x"].shape == shape
        assert json.loads((out / f"{name}.json").read_text())["figures"]["n"] == 8
        card = json.loads((out / name / "card.json").read_text())
        assert card["command"].startswith(f"logitflow train {name} --preset paper --steps 2")
    assert json.loads((out / "bench.json").read_text())["pairs"].keys() == {"tiny"}
    capsys.readouterr()
    assert a_slice(out) == 0
    assert capsys.readouterr().out.startswith("all is done:")


def test_a_stage_that_fails_ends_the_slice_with_its_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOGITFLOW_DATA", str(tmp_path))
    assert a_slice(tmp_path / "out", what=["text"]) == 2
    assert "has no lm1b/train.txt" in capsys.readouterr().err


def test_a_pack_holds_code_and_data_and_no_more_than_fits(toy_size, tmp_path, monkeypatch, capsys):
    out = tmp_path / "pack.tar"
    assert paper_scale.main(["pack", "--data", str(toy_size), "--out", str(out)]) == 0
    assert "MiB" in capsys.readouterr().out
    with tarfile.open(out) as archive:
        names = archive.getnames()
    assert {"tools/paper_scale.py", "toolkit/logitflow/cli.py"} <= set(names)
    assert {f"data/{name}" for name in paper_scale.DATA} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "-vae" in name]
    assert "toolkit/logitflow/zoo/cifar10-classifier/card.json" in names
    real = 22 * 2**20  # what the data weigh at full size
    assert out.stat().st_size + real < paper_scale.MOST
    monkeypatch.setattr(paper_scale, "MOST", 2**20)
    assert paper_scale.main(["pack", "--data", str(toy_size), "--out", str(out)]) == 2
    assert "MiB, more than 1: pack less" in capsys.readouterr().err
    assert not out.exists()


def test_the_presets_of_the_papers_size_are_those_that_it_trains(tmp_path):
    todo = paper_scale.stages(tmp_path, ["cifar10", "text", "bench"], 50_000, [])
    assert [stage.words[0] for stage in todo] == 2 * ["train", "refine", "evaluate"] + ["bench"]
    for stage in todo:
        options = cli.build_parser().parse_args(stage.words)
        assert getattr(options, "preset", "paper") == "paper"
        assert getattr(options, "num_samples", 50_000) == 50_000
        assert str(tmp_path) in " ".join(stage.words)
    assert not torch.cuda.is_initialized()
