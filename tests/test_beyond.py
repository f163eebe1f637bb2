"""Models without a discriminator of their own: trained, loaded, corrected, refined and put into a table."""

import json
import math
from functools import partial

import pytest
import torch
from laws import seeded

from logitflow import cli, zoo
from logitflow.data import twenty_five_gaussians
from logitflow.models import RealNVP
from logitflow.recipes import MODELS, train_beyond
from logitflow.reproduce import beyond, check_identity, logits_of, reproduce_beyond

QUICK = {"num_steps": 4, "fit_steps": 2, "seed": 3}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    """A model of each kind after a few steps, made by the command."""
    path = tmp_path_factory.mktemp("models") / request.param
    words = (
        f"train {request.param} --data 25gaussians --steps 4 --fit-steps 2 --seed 3 --out {path}"
    )
    assert cli.main(words.split()) == 0
    return path


def test_a_model_loads_with_its_corrected_logit(folder):
    pair, gan = zoo.load(folder), zoo.load("25gaussians-wgan-gp")
    x = torch.randn(50, 2, generator=seeded())
    with torch.no_grad():
        expected = gan.fitted(x) + pair.networks["corrector"](x)
        assert torch.equal(pair.discriminator(x), expected[:, 0])
    assert set(pair.networks) >= {"generator", "corrector", "fitted"}
    assert pair.networks["generator"] is pair.generator
    assert pair.card["gan"]["name"] == "25gaussians-wgan-gp"
    assert {"corrector_cross_entropy", "fitted_mean_ratio", "energy_distance"} <= set(
        pair.card["figures"]
    )
    assert pair.card["command"].startswith(f"logitflow train {folder.name} --data 25gaussians")
    assert (folder / "samples.png").exists()
    assert not (folder / "checkpoint.safetensors").exists()


def test_a_model_is_refined_like_a_pair(folder, tmp_path):
    words = f"refine {folder} --num-samples 20 --batch-size 20 --steps 2 --out {tmp_path}"
    for logit in ("discriminator", "fitted"):
        assert cli.main([*words.split(), "--logit", logit, "--method", "mala"]) == 0
        assert json.loads((tmp_path / "refine.json").read_text())["options"]["logit"] == logit
        for shard in (tmp_path / "shards").iterdir():
            shard.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("gan"), "names no GAN of the zoo"),
        (lambda card: card["gan"].update(name="a folder of mine"), "names no GAN of the zoo"),
        (lambda card: card["gan"].update(sha256="0"), "corrects another fitted discriminator"),
    ],
)
def test_a_corrector_of_another_gan_is_refused(folder, change, message):
    path = folder / "card.json"
    text = path.read_text()
    card = json.loads(text)
    change(card)
    path.write_text(json.dumps(card))
    try:
        with pytest.raises(ValueError, match=message):
            zoo.load(folder)
    finally:
        path.write_text(text)


def test_a_killed_recipe_goes_on_from_its_trained_model(tmp_path):
    """Killed in the fits, it finds the model trained; the fits begin anew, to the same end."""

    def stop(line):
        if line.startswith("corrector"):
            raise KeyboardInterrupt

    said = []
    train_beyond("flow", "swissroll", tmp_path / "whole", say=said.append, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train_beyond("flow", "swissroll", tmp_path / "killed", say=stop, **QUICK)
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    again, state = [], torch.get_rng_state()
    train_beyond("flow", "swissroll", tmp_path / "killed", say=again.append, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert again == said[1:]  # all but the step's own line
    names = ("generator", "corrector", "fitted")
    for file in (*(f"{name}.safetensors" for name in names), "card.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()


def test_unknown_models_and_data(tmp_path, capsys):
    with pytest.raises(ValueError, match="choose vae, flow, mmd-gan"):
        train_beyond("gan", "swissroll", tmp_path, **QUICK)
    with pytest.raises(ValueError, match="choose 25gaussians or swissroll"):
        train_beyond("vae", "mnist", tmp_path, **QUICK)
    with pytest.raises(SystemExit):
        cli.main(["train", "vae", "--out", str(tmp_path)])
    assert "--data" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"a model of .*, not a GAN"):
        logits_of(zoo.load("swissroll-wgan-gp"))


def test_the_identity_holds_for_the_true_log_ratio():
    """With the exact logit, p_g·exp(d) is the data's density, to single precision; with none, it is p_g."""
    flow, mixture = RealNVP(2, 2, 4), twenty_five_gaussians()  # new, it is the standard normal law

    def exact(x):
        return mixture.log_prob(x) - flow.log_prob(x)

    check = check_identity(flow, exact, mixture)
    assert abs(check.mass - 1) < 1e-4
    assert check.total_variation < 1e-4
    torch.testing.assert_close(check.implied, check.data, rtol=1e-3, atol=1e-6)
    assert 0.9 < check.flow_total_variation < 1
    nothing = check_identity(flow, lambda x: 0 * x[:, 0], mixture)
    inside = math.erf(2 / math.sqrt(2)) ** 2  # of the normal law, on the grid's square
    assert nothing.mass == pytest.approx(inside, abs=1e-3)
    # a constant added to the logit changes the mass and not the law that DDLS samples
    shifted = check_identity(flow, lambda x: exact(x) + 0.5, mixture)
    assert shifted.mass == pytest.approx(math.exp(0.5), rel=1e-4)
    assert shifted.total_variation < 1e-4
    with pytest.raises(ValueError, match="take more points"):
        check_identity(flow, exact, mixture, points=100)


def test_the_table_of_a_model(monkeypatch, tmp_path):
    """One model, few samples and steps: rows, gains and the identity; a second call reads the ledger."""
    few = [row._replace(stages=((row.stages[0][0], 3),)) for row in beyond.beyond_rows("flow")]
    monkeypatch.setattr(beyond, "beyond_rows", lambda model: few)
    monkeypatch.setattr(beyond, "check_identity", partial(check_identity, points=240))
    monkeypatch.setattr(beyond, "DATA_SETS", ("25gaussians",))
    monkeypatch.setattr(beyond, "MODELS", {"flow": None})
    ledger = tmp_path / "ledger.json"
    result = reproduce_beyond(num_samples=40, num_seeds=2, command="a test", ledger=ledger)
    [table] = result["tables"]
    assert table["experiment"] == "25gaussians-flow"
    assert [row["logit"] for row in table["rows"]] == [
        "",
        *(row.logit for row in few),
    ]
    base, *refined = table["rows"]
    assert base["metrics"]["gain"] == {"mean": 0.0, "standard_error": 0.0}
    finished = {
        (json.loads(key)[0]["method"], json.loads(key)[0]["logit"], json.loads(key)[1]): run
        for key, run in json.loads(ledger.read_text()).items()
    }
    floor = table["floors"]["energy_distance"]["mean"]
    for row in refined:
        assert {"high_quality", "modes", "energy_ratio", "gain"} <= set(row["metrics"])
        gains = []
        for seed in (0, 1):
            before = finished["base", "", seed]["energy_distance"]
            after = finished[row["method"], row["logit"], seed]["energy_distance"]
            gains.append((before - after) / (before - floor))
        assert row["metrics"]["gain"]["mean"] == pytest.approx(sum(gains) / 2)
    identity = table["identity"]
    assert set(identity) == {"corrected", "fitted", "uncorrected", "flow alone"}
    assert identity["corrected"]["total_variation"] < identity["flow alone"]["total_variation"]
    assert identity["fitted"]["total_variation"] < identity["flow alone"]["total_variation"]
    assert json.loads(json.dumps(result)) == result
    again = reproduce_beyond(num_samples=40, num_seeds=2, command="a test", ledger=ledger)
    assert again == result
    with pytest.raises(ValueError, match="at least 2 seeds"):
        reproduce_beyond(num_seeds=1)
