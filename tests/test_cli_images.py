"""The command line on images: train, refine and evaluate, called in this process."""

import json

import matplotlib.image
import pytest
import torch
from laws import normal_prior
from safetensors.torch import load_file, save_file

from logitflow import cli_train, commands, commands_refine, recipes, zoo
from logitflow.cli import build_parser, main
from logitflow.models import DCGANDiscriminator, DCGANGenerator


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with an untrained pair, 16 wide."""
    folder = tmp_path_factory.mktemp("pair")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = {"generator": DCGANGenerator(16), "discriminator": DCGANDiscriminator(16)}
    zoo.save(folder, networks, normal_prior(128, torch.float32), seed=0, data="CIFAR-10")
    return folder


def refine(pair, out, *words):
    numbers = ("--num-samples", "6", "--batch-size", "4")
    return main(["refine", str(pair), "--out", str(out), *numbers, *words])


def test_refining_images_writes_them_with_a_picture(pair, tmp_path, capsys):
    assert refine(pair, tmp_path) == 0
    samples = load_file(tmp_path / "samples.safetensors")
    assert samples["x"].shape == (6, 3, 32, 32)
    assert samples["z"].shape == (6, 128)
    assert samples["x"].abs().max() <= 1
    with torch.no_grad():
        expected = zoo.load(pair).generator(samples["z"])
    torch.testing.assert_close(samples["x"], expected, rtol=0, atol=1e-5)
    options = json.loads((tmp_path / "refine.json").read_text())["options"]
    assert (options["steps"], options["step_size"], options["gamma"]) == (25, 0.1, 0.01)
    assert options["logit"] == "discriminator"  # the pair has no fitted one
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) == 2
    picture = matplotlib.image.imread(tmp_path / "before-after.png")
    assert min(picture.shape[:2]) > 100
    assert "6 samples" in capsys.readouterr().out


def test_refining_images_goes_on_from_its_shards(pair, tmp_path):
    assert refine(pair, tmp_path / "whole", "--steps", "2") == 0
    assert refine(pair, tmp_path / "cut", "--steps", "2") == 0
    (tmp_path / "cut" / "samples.safetensors").unlink()
    sorted((tmp_path / "cut" / "shards").glob("*.safetensors"))[-1].unlink()
    assert refine(pair, tmp_path / "cut", "--steps", "2") == 0
    whole, cut = (load_file(tmp_path / n / "samples.safetensors")["x"] for n in ("whole", "cut"))
    assert torch.equal(whole, cut)


@pytest.mark.parametrize(
    "words",
    [("--space", "data"), ("--method", "ddls"), ("--method", "dot"), ("--method", "mh-gan")],
    ids=lambda words: words[-1],
)
def test_every_way_of_refining_images(pair, tmp_path, words):
    assert refine(pair, tmp_path, "--steps", "1", *words) == 0
    assert load_file(tmp_path / "samples.safetensors")["x"].isfinite().all()


def test_each_image_is_refined_toward_a_class(pair, tmp_path, capsys):
    assert refine(pair, tmp_path / "none", "--logit", "stratified") == 2
    assert "names no classes: use --logit discriminator" in capsys.readouterr().err
    named = zoo.load(pair)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        networks = {
            "generator": named.generator,
            "discriminator": DCGANDiscriminator(16, num_classes=10),
        }
    zoo.save(tmp_path / "named", networks, named.prior, seed=0, data="CIFAR-10")
    words = ("--logit", "stratified", "--steps", "1")
    assert refine(tmp_path / "named", tmp_path / "drs", "--method", "drs", *words) == 2
    assert "use --method mh-gan" in capsys.readouterr().err
    assert refine(tmp_path / "named", tmp_path / "out", *words, "--gamma", "0") == 0
    assert refine(tmp_path / "named", tmp_path / "plain", "--steps", "1", "--gamma", "0") == 0
    by_class, plain = (load_file(tmp_path / n / "samples.safetensors") for n in ("out", "plain"))
    assert by_class["x"].isfinite().all()
    assert not torch.equal(by_class["z"], plain["z"])


def test_a_fitted_discriminator_that_is_not_there_is_asked_for_in_vain(pair, tmp_path, capsys):
    assert refine(pair, tmp_path, "--logit", "fitted") == 2
    assert "has no fitted discriminator: use --logit discriminator" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_defaults_of_points_are_what_they_were():
    options = build_parser().parse_args(["refine", "25gaussians-wgan-gp", "--out", "x"])
    commands_refine._fill_in(options, "points")
    assert (options.steps, options.num_samples, options.batch_size) == (100, 10_000, 2000)
    assert (options.step_size, options.gamma) == (1e-3, 0.01)
    options.method, options.step_size = "dot", None
    commands_refine._fill_in(options, "images")
    assert options.step_size is None  # DOT's own


FIGURES = {
    "n": 70,
    "extractor": "CIFAR classifier",
    "reference": "CIFAR-10: 50000 training images",
    "frechet_distance": 12.345,
    "class_counts": {"airplane": 40, "truck": 30},
}


def test_evaluating_images_prints_and_keeps_every_figure(tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "evaluate_images", lambda x: (seen.append(x), FIGURES)[1])
    x = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_file({"x": x}, tmp_path / "samples.safetensors")
    words = ["evaluate", str(tmp_path / "samples.safetensors"), "--data", "cifar10"]
    assert main([*words, "--out", str(tmp_path / "figures.json")]) == 0
    assert torch.equal(seen[0], x)
    out = capsys.readouterr().out
    assert "n = 70, against CIFAR-10: 50000 training images" in out
    assert "Fréchet distance (CIFAR classifier)" in out
    assert "12.3" in out
    assert "airplane 40, truck 30" in out
    assert json.loads((tmp_path / "figures.json").read_text())["figures"] == FIGURES
    assert matplotlib.image.imread(tmp_path / "figures.png").shape[:2] == (8 * 32, 8 * 32)


def test_points_are_no_images(tmp_path, capsys):
    save_file({"x": torch.randn(9, 2)}, tmp_path / "samples.safetensors")
    assert main(["evaluate", str(tmp_path / "samples.safetensors"), "--data", "cifar10"]) == 2
    assert "(N, 3, H, W)" in capsys.readouterr().err


# Training: what is typed reaches the recipe


@pytest.fixture
def asked(monkeypatch):
    """The recipes' calls, in place of their work."""
    calls = []
    for name in ("train_cifar10", "train_cifar10_classifier"):
        monkeypatch.setattr(
            recipes, name, lambda *words, name=name, **settings: calls.append((words, settings))
        )
    return calls


def test_training_cifar10_from_the_shell(asked, tmp_path):
    assert main(["train", "cifar10", "--out", str(tmp_path), "--device", "cpu"]) == 0
    ((words, settings),) = asked
    steps, fit_steps = recipes.PRESETS["small"].num_steps, recipes.PRESETS["small"].fit_steps
    assert words == ("small", tmp_path)
    assert (settings["num_steps"], settings["fit_steps"], settings["seed"]) == (steps, fit_steps, 0)
    assert settings["command"] == (
        f"logitflow train cifar10 --preset small --steps {steps} --fit-steps {fit_steps} --seed 0"
    )
    assert "CPU cores" in settings["hardware"]
    words = ("--preset", "paper", "--steps", "7", "--fit-steps", "3", "--seed", "5")
    assert main(["train", "cifar10", "--out", str(tmp_path), *words]) == 0
    words, settings = asked[1]
    assert words[0] == "paper"
    assert (settings["num_steps"], settings["fit_steps"], settings["seed"]) == (7, 3, 5)
    assert settings["device"] == "auto"


def test_training_the_classifier_from_the_shell(asked, tmp_path):
    assert main(["train", "classifier", "--out", str(tmp_path), "--epochs", "4"]) == 0
    ((words, settings),) = asked
    assert words == (tmp_path,)
    assert (settings["num_epochs"], settings["seed"]) == (4, 0)
    assert settings["command"] == "logitflow train classifier --epochs 4 --seed 0"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("cifar10", "--epochs", "3"), "--epochs"),
        (("classifier", "--preset", "small"), "--preset"),
        (("classifier", "--steps", "3"), "--steps"),
        (("swissroll", "--preset", "small"), "--preset"),
        (("cifar10", "--preset", "huge"), "small"),
        (("cifar10", "--device", "gpu"), "cuda"),
        (("imagenet",), "cifar10"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_options_that_do_not_apply_are_refused(asked, tmp_path, capsys, words, advice):
    with pytest.raises(SystemExit) as stop:
        main(["train", *words, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert advice in capsys.readouterr().err
    assert not asked
    assert not list(tmp_path.iterdir())


def test_no_data_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOGITFLOW_DATA", str(tmp_path))
    assert main(["train", "cifar10", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no cifar10/train.parquet: name the folder that has it" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, capsys):
    words = ["train", "cifar10", "--out", str(tmp_path / "out"), "--device", "cuda"]
    assert main(words) == 2
    assert "there is no CUDA GPU here" in capsys.readouterr().err


def test_help_of_each_kind_of_training_gives_an_example(capsys):
    for name in (*recipes.DATA_SETS, "cifar10", "classifier"):
        with pytest.raises(SystemExit):
            main(["train", name, "--help"])
        page = " ".join(capsys.readouterr().out.split())
        assert f"Example: logitflow train {name} " in page
        assert "default: None" not in page
    assert cli_train.__doc__
