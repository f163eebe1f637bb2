"""The tables: every row runs, counts what it costs, and repeats itself."""

import json

import pytest
import torch

import logitflow.reproduce.toys as reproduction
from logitflow import zoo
from logitflow.recipes import networks, toy, train_toy
from logitflow.reproduce import Counted, reproduce, summarise


@pytest.fixture(scope="module", autouse=True)
def short():
    """The rows as they are, but for their numbers of steps."""

    def cut(row, most=3):
        return row._replace(stages=tuple((make, min(n, most)) for make, n in row.stages))

    few = [cut(row) for row in reproduction.rows()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "rows", lambda: few)
        yield


@pytest.fixture(scope="module")
def result():
    return reproduce("25gaussians", num_samples=60, num_seeds=2, command="a test")


def test_every_row_of_the_table_is_there(result):
    assert [row["method"] for row in result["rows"]] == [
        "base",
        *[row.method for row in reproduction.rows()],
    ]
    for row in result["rows"]:
        metrics = row["metrics"]
        assert {
            "high_quality",
            "modes",
            "spread",
            "log_likelihood",
            "energy_ratio",
            "kde_score",
        } <= set(metrics)
        assert 0 <= metrics["high_quality"]["mean"] <= 1
        assert metrics["energy_distance"]["standard_error"] >= 0
    assert json.loads(json.dumps(result)) == result
    assert result["command"] == "a test"


def test_gradient_evaluations_are_counted(result):
    for row, line in zip(reproduction.rows(), result["rows"][1:], strict=True):
        steps = row.stages[-1][1] if row.stages else 0
        expected = {
            "DRS": 0,
            "MH-GAN": 0,
            "DDLS (ULA)": steps + 1,
            "DDLS (MALA)": steps + 1,
            "cycle(MH-GAN, MALA)": 2 * steps,
        }.get(row.method, steps)
        assert line["metrics"]["gradient_evaluations"]["mean"] == expected, row.method


def test_same_seeds_same_table(result):
    def without_seconds(table):
        kept = json.loads(json.dumps(table["rows"]))
        for row in kept:
            row["metrics"].pop("seconds")
        return kept

    again = reproduce("25gaussians", num_samples=60, num_seeds=2, command="a test")
    assert without_seconds(again) == without_seconds(result)


def test_swissroll_has_no_mixture_columns():
    table = reproduce("swissroll", num_samples=40, num_seeds=2)
    for row in table["rows"]:
        assert "high_quality" not in row["metrics"]
        assert "energy_ratio" in row["metrics"]


def test_summarise_by_hand():
    assert summarise([{"a": 1.0}, {"a": 3.0}]) == {
        "a": {"mean": 2.0, "standard_error": pytest.approx(1.0)}
    }


def test_counted():
    counted = Counted(lambda x: x.sum(1))
    counted(torch.zeros(3, 2))
    counted(torch.zeros(4, 2, requires_grad=True))
    assert (counted.forwards, counted.gradients) == (7, 4)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        reproduce("25gaussians", num_seeds=1)
    with pytest.raises(ValueError, match="choose 25gaussians or swissroll"):
        toy("mnist")


def test_networks_come_from_the_seed_alone():
    state = torch.get_rng_state()
    first, second = networks(5, [2, 3, 1], [1, 2]), networks(5, [2, 3, 1], [1, 2])
    for a, b in zip(first, second, strict=True):
        assert all(map(torch.equal, a.parameters(), b.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(
        networks(6, [2, 1])[0].layers[0].weight, networks(5, [2, 1])[0].layers[0].weight
    )


def test_training_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    settings = {"num_steps": 4, "fit_steps": 3, "seed": 1}
    train_toy("swissroll", tmp_path / "whole", **settings)

    def killed_in_the_fit(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("logitflow.recipes.toys.fit_log_ratio", killed_in_the_fit)
        with pytest.raises(KeyboardInterrupt):
            train_toy("swissroll", tmp_path / "cut", **settings)
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    train_toy("swissroll", tmp_path / "cut", **settings)
    whole, cut = zoo.load(tmp_path / "whole"), zoo.load(tmp_path / "cut")
    assert whole.card == cut.card  # checksums of every file included


def test_a_killed_table_goes_on_from_its_ledger(tmp_path, monkeypatch):
    ledger = tmp_path / "table.json"
    settings = {"num_samples": 30, "num_seeds": 2, "ledger": ledger}
    done = []

    def killed_at_the_fifth(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments)
        return run_row(*arguments)

    run_row = reproduction._run_row
    with monkeypatch.context() as patch:
        patch.setattr(reproduction, "_run_row", killed_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            reproduce("swissroll", **settings)
    assert len(json.loads(ledger.read_text())) == 4
    counted = []
    monkeypatch.setattr(reproduction, "_run_row", lambda *a: counted.append(a) or run_row(*a))
    resumed = reproduce("swissroll", **settings)
    assert len(counted) == 2 * (1 + len(reproduction.rows())) - 4
    whole = reproduce("swissroll", num_samples=30, num_seeds=2)
    for a, b in zip(resumed["rows"], whole["rows"], strict=True):
        assert a["metrics"]["energy_distance"] == b["metrics"]["energy_distance"]
    ledger.write_text("[1")
    with pytest.raises(ValueError, match="damaged: remove it"):
        reproduce("swissroll", **settings)
