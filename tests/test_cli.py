"""The command line: its exit code, its words and its files.

A process of its own takes seconds to begin, so only one test has one: the others call `main`.
"""

import json
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import matplotlib.image
import pytest
import torch
from safetensors.torch import load_file, save_file

from logitflow import __version__, cli, shards, zoo
from logitflow.data import twenty_five_gaussians

PAIR = "25gaussians-wgan-gp"


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def logitflow(capsys):
    def call(*words):
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as leave:  # of argparse
            code = leave.code
        return Result(code, *capsys.readouterr())

    return call


def has_picture(path):
    image = matplotlib.image.imread(path)
    return min(image.shape[:2]) > 100 and image[..., :3].std() > 0.01


def test_a_process_prints_and_exits(tmp_path):
    """As a person meets it."""
    run = subprocess.run(
        [sys.executable, "-m", "logitflow", "refine", "no-such-pair", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        timeout=300,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("logitflow: the zoo has no 'no-such-pair'")
    assert run.stdout == ""


def test_help_teaches(logitflow):
    whole = logitflow("--help")
    assert whole.returncode == 0
    for name in ("train", "refine", "evaluate", "reproduce"):
        assert name in whole.stdout
        page = logitflow(name, "--help")
        assert page.returncode == 0
        assert f"Example: logitflow {name}" in " ".join(page.stdout.split())


def test_version(logitflow):
    assert logitflow("--version")[:2] == (0, f"logitflow {__version__}\n")


def test_train_writes_a_pair_that_loads(tmp_path, logitflow):
    result = logitflow(
        "train", "swissroll", "--out", tmp_path / "a pair", "--steps", 2, "--fit-steps", 2
    )
    assert result.returncode == 0, result.stderr
    pair = zoo.load(tmp_path / "a pair")
    assert pair.fitted is not None
    assert pair.card["command"] == "logitflow train swissroll --steps 2 --fit-steps 2 --seed 0"
    assert has_picture(tmp_path / "a pair" / "samples.png")
    assert not (tmp_path / "a pair" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "method", ["dgflow", "ddls", "mala", "dot", "mh-gan", "mh-gan+mala", "drs"]
)
def test_refine_with_every_method(tmp_path, logitflow, method):
    words = ("--method", method, "--steps", 3, "--num-samples", 200, "--out", tmp_path)
    result = logitflow("refine", PAIR, *words)
    assert result.returncode == 0, result.stderr
    samples = load_file(tmp_path / "samples.safetensors")
    assert samples["x"].shape == (200, 2)
    assert samples["x"].isfinite().all()
    assert json.loads((tmp_path / "refine.json").read_text())["options"]["method"] == method
    assert has_picture(tmp_path / "before-after.png")


def test_refine_in_data_space(tmp_path, logitflow):
    words = (
        "--space",
        "data",
        "--divergence",
        "js",
        "--steps",
        2,
        "--num-samples",
        50,
        "--out",
        tmp_path,
    )
    assert logitflow("refine", PAIR, *words).returncode == 0


def test_an_interrupted_refine_goes_on_to_the_same_result(tmp_path, logitflow, monkeypatch):
    words = ("refine", PAIR, "--num-samples", 100, "--batch-size", 20, "--steps", 5, "--out")
    assert logitflow(*words, tmp_path / "whole").returncode == 0
    write = shards.write

    def write_and_interrupt(path, samples):
        write(path, samples)
        if path.name == "shard-00001.safetensors":
            signal.raise_signal(signal.SIGINT)  # Ctrl-C

    # A shell's background jobs ignore Ctrl-C, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", write_and_interrupt)
        cut = logitflow(*words, tmp_path / "cut")
    signal.signal(signal.SIGINT, before)
    assert cut.returncode == 130
    assert "the same command goes on from here" in cut.stderr
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "shards").glob("shard-*")}
    assert {path.name[:11] for path in left} == {"shard-00000", "shard-00001"}
    assert not (tmp_path / "cut" / "samples.safetensors").exists()
    assert logitflow(*words, tmp_path / "cut").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in left} == left
    first, second = (
        load_file(tmp_path / name / "samples.safetensors") for name in ("whole", "cut")
    )
    assert torch.equal(first["x"], second["x"])


def test_evaluate_knows_real_from_spoiled(tmp_path, logitflow):
    mixture, rng = twenty_five_gaussians(), torch.Generator().manual_seed(1)
    real = mixture.sample(1000, rng)
    save_file({"x": real}, tmp_path / "real.safetensors")
    save_file(
        {"x": real + 0.1 * torch.randn(1000, 2, generator=rng)}, tmp_path / "spoiled.safetensors"
    )
    figures = {}
    for name in ("real", "spoiled"):
        out = tmp_path / f"{name}.json"
        result = logitflow(
            "evaluate", tmp_path / f"{name}.safetensors", "--data", "25gaussians", "--out", out
        )
        assert result.returncode == 0, result.stderr
        assert "high quality" in result.stdout
        figures[name] = json.loads(out.read_text())["figures"]
        assert has_picture(out.with_suffix(".png"))
    assert figures["real"]["high_quality"] > 0.99
    assert figures["spoiled"]["high_quality"] < 0.5
    assert figures["spoiled"]["energy_distance"] > figures["real"]["energy_distance"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("refine", "no-such-pair", "--out", "x"), PAIR),
        (("refine", PAIR, "--out", "x", "--step-size", "-1"), "must be a positive finite number"),
        (("refine", PAIR, "--out", "x", "--step-size", "nan"), "not a finite number"),
        (("refine", PAIR, "--out", "x", "--num-samples", "0"), "at least 1"),
        (("refine", PAIR, "--out", "x", "--num-samples", "-3"), "negative"),
        (("refine", PAIR, "--out", "x", "--method", "mh-gan", "--space", "data"), "prior"),
        (("refine", PAIR, "--out", "x", "--divergence", "tv"), "reverse_kl"),
        (("evaluate", "nothing.safetensors", "--data", "25gaussians"), "does not exist"),
        (("reproduce", "25gaussians", "--seeds", "1", "--out", "x"), "at least 2 seeds"),
        (("train", "mnist", "--out", "x"), "swissroll"),
        ((), "usage"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_bad_requests_exit_2_with_advice(tmp_path, monkeypatch, logitflow, words, advice):
    monkeypatch.chdir(tmp_path)
    result = logitflow(*words)
    assert result.returncode == 2
    assert advice in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_evaluate_refuses_what_is_no_safetensors(tmp_path, logitflow):
    path = tmp_path / "samples.safetensors"
    path.write_bytes(b"\x80\x04garbage")
    result = logitflow("evaluate", path, "--data", "25gaussians")
    assert result.returncode == 2
    assert "not a safetensors file" in result.stderr
    save_file({"x": torch.full((3, 2), torch.nan)}, path)
    assert logitflow("evaluate", path, "--data", "25gaussians").returncode == 2


def test_refusing_a_folder_of_another_run(tmp_path, logitflow):
    words = ("refine", PAIR, "--num-samples", 20, "--out", tmp_path, "--steps", 2)
    assert logitflow(*words).returncode == 0
    result = logitflow(*words, "--step-size", "0.5")
    assert result.returncode == 2
    assert "holds a run with another sampler" in result.stderr


def test_a_failure_on_the_way_exits_1(tmp_path, logitflow):
    result = logitflow(
        "refine",
        PAIR,
        "--step-size",
        "1e45",
        "--steps",
        5,
        "--num-samples",
        9,
        "--space",
        "data",
        "--out",
        tmp_path,
    )
    assert result.returncode == 1
    assert "smaller step_size" in result.stderr
