"""Faults and bad input: nothing spreads, nothing is lost, and the message says what to do."""

import pytest
import torch
from laws import CHAINS, identity, normal_prior, seeded, standard_normal, tilted_normal
from torch.distributions import Normal, Uniform

from logitflow import LatentTarget, refine, run
from logitflow.divergences import DIVERGENCES
from logitflow.samplers import (
    cycle,
    estimate_lipschitz,
    gradient_flow,
    langevin,
    metropolis_hastings,
    optimal_transport,
    rejection_sample,
)

every_chain = pytest.mark.parametrize("name", CHAINS)

# --- values that are not finite ---------------------------------------------------------------------


def nan_beyond(x0):
    """A logit that is NaN, and its gradient too, where the first coordinate exceeds x0."""
    return lambda x: -x.square().sum(1) / 50 * torch.where(x[:, 0] > x0, torch.nan, 1.0)


@pytest.mark.parametrize("name", ["ula", "mala", "flow-js", "flow-callable", "dot"])
def test_points_that_are_not_finite_stay_and_the_others_move_as_if_alone(name):
    z = torch.randn(8, 2, generator=seeded(1), dtype=torch.float64)
    bad, good = [2, 5], [0, 1, 3, 4, 6, 7]
    z[bad, 0] += 20  # far from where the others could get
    ends, counts = [], []
    for x0 in (10.0, 1000.0):
        sampler = CHAINS[name](LatentTarget(identity, nan_beyond(x0), normal_prior()))
        note = lambda k, state, info: counts.append(int(info.num_nonfinite))  # noqa: E731
        ends.append(run(sampler, z, num_steps=4, generator=seeded(), callback=note).z)
    broken, whole = ends
    assert torch.equal(broken[bad], z[bad])
    assert torch.equal(broken[good], whole[good])
    assert counts == [2] * 4 + [0] * 4


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@every_chain
def test_no_point_ever_becomes_non_finite(name, bad):
    """Where proposals may land on bad values at any time, points stay where those are finite."""
    target = LatentTarget(
        identity,
        lambda x: x[:, 1] * torch.where(x[:, 0] > 0.5, bad, 1.0),
        normal_prior(),
    )
    z = torch.randn(50, 2, generator=seeded(1), dtype=torch.float64)
    z[:, 0] -= (z[:, 0] - 0.4).clamp(min=0)  # all begin where the logit is finite
    infos = []
    end = run(
        CHAINS[name](target),
        z,
        num_steps=10,
        generator=seeded(),
        callback=lambda *a: infos.append(a[2]),
    ).z
    assert torch.isfinite(end).all()
    assert sum(int(info.num_nonfinite) for info in infos) > 0 or name.startswith("dot")
    if name in {"ula", "mala", "mh-gan", "cycle"}:  # these know the logit where they arrive
        assert (end[:, 0] <= 0.5).all()


def test_drs_drops_and_counts_draws_whose_logit_is_not_finite():
    target = LatentTarget(identity, nan_beyond(0.5), normal_prior())
    samples = rejection_sample(target, num_samples=300, generator=seeded())
    assert (samples.z[:, 0] <= 0.5).all()
    assert samples.info.num_nonfinite > 0


@pytest.mark.parametrize("name", sorted(CHAINS.keys() - {"dot-estimated"}))
def test_a_step_that_fails_everywhere_raises_and_says_what_to_try(name):
    calls = []

    def logit(x):
        calls.append(1)
        return x.sum(1) * (torch.nan if len(calls) > 6 else 1.0)

    target = LatentTarget(identity, logit, normal_prior())
    z = torch.randn(4, 2, generator=seeded(1), dtype=torch.float64)
    with pytest.raises(FloatingPointError, match=r"step \d+ of .*all 4 points.*smaller step_size"):
        run(CHAINS[name](target), z, num_steps=20, generator=seeded())


def test_drs_without_any_finite_logit_says_where_to_look():
    target = LatentTarget(identity, nan_beyond(-1e9), normal_prior())
    with pytest.raises(ValueError, match="no pilot draw has a finite logit: look at"):
        rejection_sample(target, num_samples=3, generator=seeded())


@pytest.mark.parametrize("unknown", [-torch.inf, torch.nan])
@pytest.mark.parametrize("name", ["mala", "mh-gan"])
def test_a_chain_that_starts_at_an_unknown_density_finds_its_way(name, unknown):
    def logit(x):  # −∞ or NaN beyond 0.5, with a finite gradient
        return torch.where(x[:, 0] > 0.5, unknown, 0.0) + x[:, 1]

    target = LatentTarget(identity, logit, normal_prior())
    z = torch.full((200, 2), 0.6, dtype=torch.float64)
    end = run(CHAINS[name](target), z, num_steps=50, generator=seeded()).z
    assert (end[:, 0] <= 0.5).double().mean() > 0.95


# --- settings ---------------------------------------------------------------------------------------

WRONG_NUMBERS = [0, 0.0, -1e-3, -1, float("nan"), float("inf"), -float("inf")]
SETTINGS = {
    "langevin step_size": lambda v: langevin(tilted_normal(), step_size=v),
    "mala step_size": lambda v: langevin(tilted_normal(), step_size=v, adjust=True),
    "flow step_size": lambda v: gradient_flow(tilted_normal(), step_size=v),
    "dot step_size": lambda v: optimal_transport(tilted_normal(), step_size=v),
    "dot lipschitz": lambda v: optimal_transport(tilted_normal(), lipschitz=v),
}


@pytest.mark.parametrize("value", WRONG_NUMBERS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_number_that_is_not_positive_and_finite_is_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting.split()[1]} must be a positive finite number"):
        SETTINGS[setting](value)


@pytest.mark.parametrize("value", ["0.1", None, True, torch.tensor(0.1), 1j])
@pytest.mark.parametrize("setting", sorted(SETTINGS.keys() - {"dot lipschitz"}))
def test_a_setting_that_is_no_number_is_refused(setting, value):
    with pytest.raises(TypeError, match="step_size must be a number, not"):
        SETTINGS[setting](value)


@pytest.mark.parametrize("gamma", [-1e-9, -1, float("nan"), float("inf")])
def test_gamma_may_be_zero_and_not_less(gamma):
    gradient_flow(tilted_normal(), gamma=0)
    with pytest.raises(ValueError, match="gamma must be zero or a positive finite number"):
        gradient_flow(tilted_normal(), gamma=gamma)


def test_an_unknown_divergence_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=f"unknown divergence 'wasserstein'.*{DIVERGENCES[-1]}"):
        gradient_flow(tilted_normal(), divergence="wasserstein")
    with pytest.raises(TypeError, match="divergence must be a name or a callable"):
        gradient_flow(tilted_normal(), divergence=2)


def test_samplers_that_propose_need_a_prior():
    flat = tilted_normal(prior=False)
    with pytest.raises(ValueError, match="give LatentTarget the generator's prior"):
        metropolis_hastings(flat)
    with pytest.raises(ValueError, match="give LatentTarget the generator's prior"):
        rejection_sample(flat, num_samples=3, generator=seeded())


def test_a_cycle_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one sampler"):
        cycle()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, not 0"),
        ({"num_samples": -5}, "num_samples must be at least 1"),
        ({"num_pilot": 0}, "num_pilot must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"percentile": -1}, "percentile must lie between 0 and 100, or be None"),
        ({"percentile": 101}, "percentile must lie between 0 and 100"),
        ({"percentile": float("nan")}, "percentile must lie between 0 and 100"),
    ],
)
def test_settings_of_drs(settings, message):
    with pytest.raises(ValueError, match=message):
        rejection_sample(tilted_normal(), **{"num_samples": 3, "generator": seeded(), **settings})


def test_drs_gives_up_rather_than_run_for_hours():
    """One draw in a million is far above the others: next to nothing would ever be accepted."""
    target = LatentTarget(identity, lambda x: 40 * (x[:, 0] - 3).clamp(min=0), normal_prior(1))
    with pytest.raises(RuntimeError, match="Calibrate the logit, set percentile"):
        rejection_sample(
            target, num_samples=1000, generator=seeded(), num_pilot=100_000, batch_size=50_000
        )


def test_drs_needs_to_know_the_shape_of_a_latent():
    target = LatentTarget(identity, lambda x: x, Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="give it the shape of one latent"):
        rejection_sample(target, num_samples=3, generator=seeded())


def test_drs_returns_as_many_samples_as_asked():
    for num_samples in (1, 7, 1001):
        samples = rejection_sample(tilted_normal(), num_samples=num_samples, generator=seeded())
        assert samples.x.shape == samples.z.shape == (num_samples, 2)
        assert 0 < samples.info.acceptance_rate <= 1


# --- what a run begins from -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (
            torch.zeros(4, 2, dtype=torch.int64),
            TypeError,
            r"floating point, not torch.int64.*z.float\(\)",
        ),
        (torch.zeros(4, 2, dtype=torch.bool), TypeError, "floating point"),
        (torch.zeros(4, 2, dtype=torch.complex64), TypeError, "floating point"),
        ([[0.0, 1.0]], TypeError, "must be a torch.Tensor, not list"),
        (torch.zeros(0, 2), ValueError, "hold no point: pass at least one"),
        (torch.zeros(3, 0), ValueError, "hold no point"),
        (torch.tensor(1.0), ValueError, "hold no point"),
    ],
)
@every_chain
def test_latents_that_are_no_batch_are_refused(name, z, error, message):
    with pytest.raises(error, match=message):
        run(CHAINS[name](tilted_normal()), z, num_steps=1, generator=seeded())


@pytest.mark.parametrize("name", ["ula", "mala", "mh-gan", "cycle"])
def test_a_prior_of_another_shape_is_refused(name):
    target = LatentTarget(identity, lambda x: x.sum(1), normal_prior(3))
    with pytest.raises(
        ValueError, match=r"prior \(shape \(3,\)\) does not fit.*shape of one latent"
    ):
        run(CHAINS[name](target), standard_normal(5), num_steps=1, generator=seeded())


@every_chain
def test_a_logit_with_two_columns_is_refused(name):
    target = LatentTarget(identity, identity, normal_prior())
    with pytest.raises(ValueError, match=r"one number a sample.*vector-valued.*corrector"):
        run(CHAINS[name](target), standard_normal(5), num_steps=1, generator=seeded())


def test_the_generator_of_a_run_is_a_torch_generator_on_the_latents_device():
    sampler = langevin(tilted_normal())
    for wrong in (None, 0, torch.default_generator.initial_seed()):
        with pytest.raises(TypeError, match=r"torch.Generator\(z.device\).manual_seed"):
            run(sampler, standard_normal(3), num_steps=1, generator=wrong)
    elsewhere = standard_normal(3).to("meta")  # stands for any other device
    with pytest.raises(ValueError, match="generator is on cpu and the latents on meta: make it"):
        run(sampler, elsewhere, num_steps=1, generator=seeded())


def test_a_negative_number_of_steps_is_refused_and_zero_is_none():
    sampler, z = langevin(tilted_normal()), standard_normal(3)
    with pytest.raises(ValueError, match="num_steps must be 0 or more, not -1"):
        run(sampler, z, num_steps=-1, generator=seeded())
    assert torch.equal(run(sampler, z, num_steps=0, generator=seeded()).z, z)


def test_a_lipschitz_constant_that_cannot_be_estimated_is_refused():
    for z in (standard_normal(1), standard_normal(5)):
        flat = LatentTarget(identity, lambda x: 0 * x.sum(1), None)
        with pytest.raises(ValueError, match="pass lipschitz="):
            estimate_lipschitz(flat, z)


def test_points_outside_the_box_are_brought_in():
    prior = Uniform(-torch.ones(2).double(), torch.ones(2).double())
    target = LatentTarget(identity, lambda x: -x.square().sum(1), prior)
    outside = 5 * standard_normal(50)
    for name, make in CHAINS.items():
        end = run(make(target), outside, num_steps=60, generator=seeded()).z
        assert (end.abs() <= 1).all(), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples and batch_size must be at least 1"),
        ({"batch_size": 0}, "num_samples and batch_size must be at least 1"),
        ({"seed": -1}, "seed at least 0"),
        ({"num_steps": -1}, "num_steps must be 0 or more"),
        ({"z": torch.zeros(3, 2)}, "z holds 3 points, but num_samples is 10"),
    ],
)
def test_settings_of_refine(settings, message):
    target = tilted_normal()
    with pytest.raises(ValueError, match=message):
        refine(target, langevin(target), **{"num_samples": 10, "num_steps": 1, **settings})


def test_refine_without_a_prior_needs_points():
    target = tilted_normal(prior=False)
    with pytest.raises(ValueError, match="pass z=, the points to begin from"):
        refine(target, gradient_flow(target), num_samples=10, num_steps=1)
