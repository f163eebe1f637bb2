"""What the pages compute in the browser: the toolkit's numbers, on the same latents and noise."""

import base64
import math
import shutil
import struct

import pytest
import torch
from playwright.sync_api import sync_playwright
from torch.distributions import Normal, Uniform

from logitflow import LatentTarget, live, metrics, zoo
from logitflow.cli import main
from logitflow.data import twenty_five_gaussians
from logitflow.divergences import DIVERGENCES, velocity_weight
from logitflow.models import MLP
from logitflow.samplers import gradient_flow, langevin, metropolis_hastings, optimal_transport

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FUNCTIONS = (
    "unpackPair, score, measure, begin, langevin, gradientFlow, transport, metropolis, velocityWeight, "
    "randomness, uniform, normal, rates, implicitEuler, eulerMaruyama, potential"
)
N = 203  # no multiple of four


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pair():
    return zoo.load(live.PAIR)


@pytest.fixture(scope="module")
def target(pair):
    """The toolkit's target in double precision."""
    networks = [MLP(network.settings["sizes"]).double() for network in pair[:2]]
    for network, single in zip(networks, pair[:2], strict=True):
        network.load_state_dict(single.state_dict())
    return LatentTarget(*networks, pair.prior)


@pytest.fixture(scope="module")
def z():
    return 2 * torch.rand(N, 2, generator=seeded(), dtype=torch.float64) - 1


@pytest.fixture(scope="module")
def page(pair, tmp_path_factory):
    """A page, opened as a file, that lends the component's functions and the pair."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        file = tmp_path_factory.mktemp("live") / "numbers.html"
        file.write_text(
            f'<script type="module">{live.source("densityView")}\nwindow.live = {{{FUNCTIONS}}};</script>',
            encoding="utf-8",
        )
        page.goto(file.as_uri())
        page.evaluate("data => { window.pair = live.unpackPair(data); }", live.export(pair))
        yield page
        browser.close()


def call(page, code, **values):
    """The value of a JavaScript expression: tensors go in as Float64Arrays and come out as lists."""
    plain = {
        k: {"list": v.flatten().tolist()} if isinstance(v, torch.Tensor) else v
        for k, v in values.items()
    }
    names = ", ".join(values)
    return page.evaluate(
        f"""given => {{
            const got = Object.fromEntries(Object.entries(given).map(
                ([name, value]) => [name, value?.list ? Float64Array.from(value.list) : value]));
            const {{ {names} }} = got;
            const told = (value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
            const value = ({code});
            return value?.constructor === Object
                ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, told(v)])) : told(value);
        }}""",
        plain,
    )


def agree(found, expected, rtol=1e-9, atol=1e-11):
    found = torch.tensor(found, dtype=torch.float64).reshape(expected.shape)
    torch.testing.assert_close(found, expected.double(), rtol=rtol, atol=atol)


def test_samples_logits_and_gradient(page, target, z):
    found = call(page, "live.score(pair, z)", z=z)
    value, grad = target.logits_and_grad(z)
    agree(found["x"], target.generate(z))
    agree(found["logits"], value)
    agree(found["grad"], grad)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_velocity_weights(page, divergence):
    d = torch.linspace(-8, 8, 33, dtype=torch.float64)
    agree(
        call(page, f"d.map(live.velocityWeight('{divergence}'))", d=d),
        velocity_weight(divergence)(d),
    )


def steps_agree(page, target, sampler, z, code, draws, num_steps=3, rtol=1e-9, atol=1e-11):
    """The toolkit's sampler and the page's, step by step, with the same noise; `draws` of a generator."""
    state, ours, theirs = sampler.init(z), seeded(5), seeded(5)
    page.evaluate(
        "list => { window.state = live.begin(pair, Float64Array.from(list)); }",
        z.flatten().tolist(),
    )
    for _ in range(num_steps):
        state, _ = sampler.step(state, theirs)
        found = call(page, f"state = {code}", **draws(ours))
        agree(found["z"], state.z, rtol, atol)
        there = torch.tensor(found["z"], dtype=torch.float64).view(N, 2)
        agree(found["x"], target.generate(there))
    assert (state.z != z).any()
    return found


def normal_then_share(rng):
    return {
        "noise": torch.randn(N, 2, generator=rng, dtype=torch.float64),
        "share": torch.rand(N, generator=rng, dtype=torch.float64),
    }


@pytest.mark.parametrize("step_size", [1e-4, 0.3])  # the second meets the box's walls
def test_mala(page, target, z, step_size):
    code = (
        f"live.langevin(pair, state, {{ stepSize: {step_size}, adjust: true }}, {{ noise, share }})"
    )
    sampler = langevin(target, step_size=step_size, adjust=True)
    steps_agree(page, target, sampler, z, code, normal_then_share)


def only_normal(rng):
    return {"noise": torch.randn(N, 2, generator=rng, dtype=torch.float64)}


def test_ula(page, target, z):
    code = "live.langevin(pair, state, { stepSize: 0.3, adjust: false }, { noise })"
    steps_agree(page, target, langevin(target, step_size=0.3), z, code, only_normal)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_flow(page, target, z, divergence):
    code = (
        f"live.gradientFlow(pair, state, {{ stepSize: 1e-3, gamma: 0.1, divergence: '{divergence}' }}, "
        "{ noise })"
    )
    sampler = gradient_flow(target, divergence=divergence, step_size=1e-3, gamma=0.1)
    steps_agree(page, target, sampler, z, code, only_normal)


def test_optimal_transport(page, target, z):
    code = "live.transport(pair, state, { stepSize: 0.01 })"
    sampler = optimal_transport(target, step_size=0.01)
    # the toolkit raises Adam's β to the number of steps in single precision, which each step adds to
    found = steps_agree(page, target, sampler, z, code, lambda rng: {}, 4, 1e-5, 1e-8)
    agree([found["lipschitz"]], optimal_transport(target).init(z).lipschitz[None])


def test_metropolis_hastings(page, target, z):
    def proposal_then_share(rng):
        return {  # the prior's own precision, then the latents'
            "proposal": torch.rand(N, 2, generator=rng).double(),
            "share": torch.rand(N, generator=rng, dtype=torch.float64),
        }

    code = "live.metropolis(pair, state, {}, { proposal, share })"
    steps_agree(page, target, metropolis_hastings(target), z, code, proposal_then_share)


def test_a_point_that_would_be_nowhere_stays(page, z):
    """A noise that is no number moves no point but its own."""
    noise = torch.zeros(N, 2, dtype=torch.float64)
    noise[7, 0] = math.nan
    share = torch.zeros(N, dtype=torch.float64)
    for name in ("langevin", "gradientFlow"):
        settings = "{ stepSize: 1e-3, adjust: true, gamma: 0.1, divergence: 'kl' }"
        code = f"live.{name}(pair, live.begin(pair, z), {settings}, {{ noise, share }})"
        found = torch.tensor(
            call(page, code, z=z, noise=noise, share=share)["z"], dtype=torch.float64
        ).view(N, 2)
        assert found.isfinite().all()
        assert torch.equal(found[7], z[7])
        assert (found[8] != z[8]).any()


def test_figures(page, target, z):
    mixture = twenty_five_gaussians()
    x = torch.cat([target.generate(z), mixture.sample(100, seeded(2)).double()])
    logits = torch.randn(len(x), generator=seeded(3), dtype=torch.float64)
    found = call(page, "live.measure(pair, { x, logits })", x=x, logits=logits)
    quality = metrics.high_quality_fraction(x, *mixture)
    assert sum(found["perMode"]) == round(quality * len(x)) > 0
    assert sum(map(bool, found["perMode"])) == metrics.recovered_modes(x, *mixture)
    agree([found["logitSum"]], logits.sum()[None])


def test_randomness(page):
    """Uniform and normal numbers have their moments, and another seed gives others."""
    n = 40_000
    u, again, other = (
        torch.tensor(call(page, f"live.uniform(live.randomness({seed}), {n})"))
        for seed in (1, 1, 2)
    )
    assert torch.equal(u, again)
    assert not torch.equal(u, other)
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(u.var() * 12 - 1) < 5 * math.sqrt(0.8 / n)  # the fourth moment of a uniform number
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]) < 5 / math.sqrt(n)
    noise = torch.tensor(call(page, f"live.normal(live.randomness(3), {n})"))
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(noise.pow(4).mean() - 3) < 5 * math.sqrt(96 / n)


@pytest.mark.parametrize("name", ["double well", "one well", "three wells", "flat bottom"])
def test_density(page, name):
    """Implicit Euler on the grid is the matrix's; the Gibbs density rests; U′ is U's slope."""
    gamma, cells, tau = 0.4, 120, 0.05
    grid = call(page, f"live.rates(live.potential('{name}')[0], {gamma}, -3, 3, {cells})")
    x, right, left = (torch.tensor(grid[k], dtype=torch.float64) for k in ("x", "right", "left"))
    matrix = torch.diag(right, -1) + torch.diag(left, 1)
    matrix = matrix - torch.diag(matrix.sum(0))
    U = torch.tensor(call(page, f"x.map(live.potential('{name}')[0])", x=x), dtype=torch.float64)
    gibbs = torch.softmax(-U / gamma, 0)
    assert ((matrix @ gibbs).abs() < 1e-10 * matrix.abs().max()).all()
    rho = torch.softmax(-((x - 0.4) ** 2), 0)
    found = call(
        page,
        f"live.implicitEuler(live.rates(live.potential('{name}')[0], {gamma}, -3, 3, {cells}), rho, {tau})",
        rho=rho,
    )
    identity = torch.eye(cells, dtype=torch.float64)
    agree(found, torch.linalg.solve(identity - tau * matrix, rho))
    slope = f"live.potential('{name}')[1]"
    h = 1e-4
    left, right = (
        torch.tensor(call(page, f"x.map(live.potential('{name}')[0])", x=x + shift), dtype=x.dtype)
        for shift in (-h, h)
    )
    central = (right - left) / (2 * h)
    agree(call(page, f"x.map({slope})", x=x), central, rtol=1e-5, atol=1e-5)
    noise = torch.randn(cells, generator=seeded(), dtype=torch.float64)
    moved = call(page, f"live.eulerMaruyama({slope}, {gamma}, x, 0.01, noise)", x=x, noise=noise)
    exact = torch.tensor(call(page, f"x.map({slope})", x=x), dtype=torch.float64)
    agree(moved, x - 0.01 * exact + math.sqrt(2 * gamma * 0.01) * noise)


def test_weights_are_exported_in_single_precision(pair):
    layers = live.export(pair)["logit"]
    raw = base64.b64decode(layers["weights"])
    values = torch.tensor(struct.unpack(f"<{len(raw) // 4}f", raw))
    assert torch.equal(values, torch.cat([p.flatten() for p in pair.discriminator.parameters()]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prior": Normal(torch.zeros(2), 1.0)}, "uniform prior on a square"),
        ({"prior": Uniform(-torch.ones(2), torch.tensor([1.0, 2.0]))}, "uniform prior on a square"),
        ({"discriminator": torch.nn.Linear(2, 1)}, "as discriminator, not Linear"),
        ({"generator": torch.nn.Linear(2, 2)}, "as generator, not Linear"),
    ],
)
def test_other_pairs_are_refused(pair, change, told):
    with pytest.raises(ValueError, match=told):
        live.export(pair._replace(**change))


def test_pupil(tmp_path):
    """A narrow generator comes nearer to its teacher, and its card gives the command back."""
    apart = []
    for steps in (1, 400):
        folder = tmp_path / f"{steps}"
        settings = f"--width 8 --steps {steps} --fit-steps 2 --seed 1"
        main(f"train pupil --out {folder} {settings}".split())
        pupil, teacher = zoo.load(folder), zoo.load("25gaussians-wgan-gp")
        assert pupil.card["command"] == (
            f"logitflow train pupil --teacher 25gaussians-wgan-gp {settings}"
        )
        assert pupil.card["data"] == "25gaussians"
        z = 2 * torch.rand(500, 2, generator=seeded()) - 1
        with torch.no_grad():
            apart.append(float((pupil.generator(z) - teacher.generator(z)).norm(dim=1).mean()))
    assert apart[1] < apart[0] / 2
    live.export(pupil)
