"""Edges where the core once failed: near pairs, odd callables, flat latents, damaged files."""

import pytest
import torch
from laws import CHAINS, B, identity, normal_prior, seeded, standard_normal, tilted_normal

from logitflow import LatentTarget, refine, run
from logitflow.data import twenty_five_gaussians
from logitflow.samplers import estimate_lipschitz, gradient_flow, optimal_transport

SIZES = {"num_samples": 23, "num_steps": 3, "batch_size": 10, "seed": 5}


def test_the_lipschitz_estimate_holds_in_float32_for_near_pairs():
    """float32, points 1e-3 apart: a distance by matrix products would be wrong by tens of per cent."""
    target = LatentTarget(identity, lambda x: x @ B.float(), None)
    x = twenty_five_gaussians().sample(1024, seeded())
    assert 0.99 < estimate_lipschitz(target, x) / B.float().norm() < 1.001


@pytest.mark.parametrize(
    ("logit", "z"),
    [
        (lambda x: x.sum(1) * torch.nan, standard_normal(5)),
        (lambda x: x.sum(1), standard_normal(1).expand(5, 2)),
    ],
)
def test_a_slope_that_cannot_be_estimated_is_refused_by_a_sentence(logit, z):
    with pytest.raises(ValueError, match="pass lipschitz="):
        run(
            optimal_transport(LatentTarget(identity, logit, None)),
            z,
            num_steps=1,
            generator=seeded(),
        )


def test_a_callable_divergence_works_in_inference_mode():
    target = tilted_normal()
    f = lambda r: r * torch.log(r)  # noqa: E731
    expected = run(
        gradient_flow(target, divergence=f), standard_normal(3), num_steps=2, generator=seeded()
    ).z
    with torch.inference_mode():
        out = run(
            gradient_flow(target, divergence=f), standard_normal(3), num_steps=2, generator=seeded()
        ).z
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", CHAINS)
def test_latents_without_a_latent_axis_are_refused(name):
    target = LatentTarget(identity, lambda x: -x.square(), normal_prior(1))
    with pytest.raises(ValueError, match="latent"):
        run(CHAINS[name](target), torch.zeros(5), num_steps=1, generator=seeded())


def test_a_folder_whose_first_logits_are_nan_can_be_continued(tmp_path):
    target = LatentTarget(
        identity, lambda x: x[:, 1] * torch.where(x[:, 0] > 0, torch.nan, 1.0), normal_prior()
    )
    sizes = {**SIZES, "num_samples": 20}
    first, again = (
        refine(target, gradient_flow(target), folder=tmp_path, **sizes) for _ in range(2)
    )
    assert torch.equal(first.z, again.z)


def test_starting_points_that_differ_late_are_noticed(tmp_path):
    target, z = tilted_normal(), standard_normal(23)
    refine(target, gradient_flow(target), z=z, folder=tmp_path, **SIZES)
    z[10:] += 100
    with pytest.raises(ValueError, match="starting points"):
        refine(target, gradient_flow(target), z=z, folder=tmp_path, **SIZES)


def test_another_callable_divergence_is_noticed(tmp_path):
    target = tilted_normal()
    refine(
        target, gradient_flow(target, divergence=lambda r: r * r.log()), folder=tmp_path, **SIZES
    )
    with pytest.raises(ValueError, match="sampler"):
        refine(target, gradient_flow(target, divergence=lambda r: r * r), folder=tmp_path, **SIZES)


@pytest.mark.parametrize("content", ['{"sampler": ', "[]", '{"another": "program\'s"}'])
def test_a_run_json_that_is_no_runs_is_refused_by_a_sentence(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    target = tilted_normal()
    with pytest.raises(ValueError, match=r"run\.json.*empty folder"):
        refine(target, gradient_flow(target), folder=tmp_path, **SIZES)


@pytest.mark.parametrize("damage", ["truncated", "noise", "another file's"])
def test_a_damaged_checkpoint_is_refused_by_a_sentence(tmp_path, damage):
    from safetensors.torch import save
    from test_training import networks, train

    path = tmp_path / "checkpoint.safetensors"
    train(networks(), num_steps=2, checkpoint=path)
    data = {
        "truncated": path.read_bytes()[:-9],
        "noise": b"\x07" * 999,
        "another file's": save({"x": torch.zeros(3)}),
    }[damage]
    path.write_bytes(data)
    with pytest.raises(ValueError, match="move it away"):
        train(networks(), num_steps=4, checkpoint=path)
    assert path.read_bytes() == data
