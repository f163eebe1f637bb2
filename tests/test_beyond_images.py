"""Models of images without a discriminator: trained by the command, loaded, refined and put into a table."""

import json
from functools import partial

import pytest
import torch
from laws import seeded
from torch import nn
from torch.distributions import Normal

from logitflow import LatentTarget, cli, refine, zoo
from logitflow.data import Images, images
from logitflow.metrics.images import classifier_extractor, judge_against
from logitflow.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    ImageDecoder,
    ImageEncoder,
    ImageFlow,
)
from logitflow.models.classifier import Classifier
from logitflow.ratio import fit_along_flow, fit_log_ratio
from logitflow.recipes import IMAGE_MODELS, beyond_images, train_beyond_images
from logitflow.recipes.beyond import Model
from logitflow.recipes.beyond_images import GAN
from logitflow.reproduce import (
    beyond_image_rows,
    logits_of,
    open_model_lab,
    reproduce_beyond_images,
)
from logitflow.reproduce import beyond_images as tables
from logitflow.reproduce.beyond_images import ALONG
from logitflow.reproduce.common import Row
from logitflow.samplers import gradient_flow, langevin
from logitflow.training import dequantised, elbo, train_likelihood, train_mmd_gan

NOISE = Images(
    torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=seeded(7)),
    torch.arange(40) % 10,
    "noise",
)


def normal(*shape):
    return Normal(torch.zeros(shape), torch.ones(shape))


def tiny_vae(at, data):
    encoder, decoder = ImageEncoder(8, 6), ImageDecoder(8, 6)
    networks = {"generator": decoder, "encoder": encoder}
    train = partial(train_likelihood, partial(elbo, encoder, decoder), networks, batch_size=2)
    return Model(networks, normal(6), train)


def tiny_flow(at, data):
    flow = ImageFlow(32, width=4, num_couplings=2, num_scales=2)
    flow.whiten(dequantised(data.sample(40, seeded()), seeded()))

    def log_prob(x, rng):
        return flow.log_prob(dequantised(x, rng))

    networks = {"generator": flow}
    train = partial(train_likelihood, log_prob, networks, batch_size=2)
    return Model(networks, normal(3, 32, 32), train)


def tiny_mmd_gan(at, data):
    generator, critic = DCGANGenerator(16), DCGANDiscriminator(16, num_features=3)
    train = partial(train_mmd_gan, generator, critic, penalty=0.0, batch_size=2, critic_steps=1)
    networks = {"generator": generator, "critic": critic}
    return Model(networks, normal(128), lambda sample, **rest: train(sample, normal(128), **rest))


TINY = {"vae": tiny_vae, "flow": tiny_flow, "mmd-gan": tiny_mmd_gan}


def judged(x):
    assert x.abs().max() <= 1
    return {"frechet_distance": float(x.square().mean()), "inception_score": 1.0}


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """A zoo of a tiny GAN alone, tiny models, noise for data, small fits and a judge of no cost."""
    shelf = tmp_path_factory.mktemp("zoo")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        gan = {"generator": DCGANGenerator(16), "discriminator": DCGANDiscriminator(16)}
    zoo.save(shelf / GAN, gan, normal(128), seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "FOLDER", shelf)
        for model, make in TINY.items():
            patch.setitem(IMAGE_MODELS, model, beyond_images.ImageModel(make, 4, 2))
        patch.setattr(images, "cifar10", lambda split: NOISE)
        patch.setattr(beyond_images, "evaluate_images", judged)
        patch.setattr("logitflow.recipes.common.fit_log_ratio", quick_fit)
        patch.setattr(beyond_images, "fit_along_flow", quick_fit_along)
        yield shelf


def quick_fit(*networks, **settings):
    return fit_log_ratio(*networks, **{**settings, "batch_size": 2, "num_held_out": 4})


def quick_fit_along(*networks, **settings):
    quick = {"num_steps": 4, "num_walkers": 4, "batch_size": 2, "checkpoint_every": 2}
    return fit_along_flow(*networks, **{**settings, **quick})


@pytest.fixture(scope="module", params=TINY)
def folder(request, small):
    """A model of each kind after a few steps, made by the command, on the zoo's shelf."""
    path = small / f"cifar10-{request.param}"
    words = f"train {request.param} --data cifar10 --steps 4 --fit-steps 2 --seed 3 --device cpu"
    assert cli.main([*words.split(), "--out", str(path)]) == 0
    return path


def test_a_model_loads_with_its_corrected_logit(folder):
    pair, gan = zoo.load(folder), zoo.load(GAN)
    x = images.from_bytes(NOISE.pixels[:5])
    with torch.no_grad():
        expected = gan.discriminator(x) + pair.networks["corrector"](x)
        torch.testing.assert_close(pair.discriminator(x), expected, rtol=0, atol=0)
    logits = logits_of(pair)
    assert torch.equal(logits["uncorrected"](x), gan.discriminator(x))
    assert pair.card["gan"] == zoo.gan_of(GAN, "discriminator")
    measured = {"corrector_cross_entropy", "fitted_mean_ratio", "along_cross_entropy"}
    assert measured | {"frechet_distance"} <= set(pair.card["figures"])
    model = folder.name.removeprefix("cifar10-")
    assert pair.card["command"] == (
        f"logitflow train {model} --data cifar10 --steps 4 --fit-steps 2 --seed 3"
    )
    assert pair.card["data"] == "noise"
    assert [point["step"] for point in pair.card["curve"]] == [2, 4]
    left = {path.name for path in folder.glob("*.safetensors")}
    roles = {f"{role}.safetensors" for role in pair.networks}
    assert left == roles | {"checkpoint.safetensors"}
    assert {path.name for path in (folder / "pictures").iterdir()} == {
        "step-000002.png",
        "step-000004.png",
    }
    assert (folder / "samples.png").exists()
    for network in pair.networks.values():
        for weight in network.parameters():
            assert weight.ndim < 2 or torch.equal(weight.half().float(), weight)


def test_a_model_is_refined_in_its_latents(folder):
    pair = zoo.load(folder)
    target = LatentTarget(pair.generator, pair.discriminator, pair.prior)
    for make in (
        partial(gradient_flow, step_size=0.05, gamma=0.01),
        partial(langevin, step_size=0.05),
    ):
        result = refine(target, make(target), num_samples=3, num_steps=2, batch_size=2)
        assert result.x.shape == (3, 3, 32, 32)
        assert result.z.shape == (3, *pair.prior.batch_shape)
        assert result.x.abs().max() <= 1
        assert int(result.info.num_nonfinite) == 0


def test_the_command_refines_a_model(folder, tmp_path):
    words = f"refine {folder} --num-samples 2 --batch-size 2 --steps 1 --out {tmp_path}"
    assert cli.main([*words.split(), "--logit", "discriminator"]) == 0
    assert (tmp_path / "before-after.png").exists()


@pytest.mark.parametrize("where", ["step 2", "corrector", "fitted", "along"])
def test_a_killed_recipe_goes_on_to_the_same_files(where, tmp_path):
    """Killed while it trains, and after each of the three fits."""

    def stop(line):
        if line.startswith(where):
            raise KeyboardInterrupt

    run = partial(train_beyond_images, "mmd-gan", num_steps=4, fit_steps=2, seed=3, device="cpu")
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", say=stop)
    state = torch.get_rng_state()
    run(tmp_path / "killed")
    assert torch.equal(torch.get_rng_state(), state)
    for role in ("generator", "critic", "corrector", "fitted", "along"):
        file = f"{role}.safetensors"
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()
    assert not list(tmp_path.glob("*/*.checkpoint.safetensors"))


def test_a_changed_gan_asks_for_a_new_fit(folder, small):
    path = small / GAN / "card.json"
    text = path.read_text()
    entry = json.loads(text)
    with torch.random.fork_rng(devices=[]):
        other = {"generator": DCGANGenerator(16), "discriminator": DCGANDiscriminator(16)}
    kept = {file: file.read_bytes() for file in (small / GAN).iterdir()}
    try:
        zoo.save(small / GAN, other, normal(128), seed=entry["seed"])
        with pytest.raises(ValueError, match="corrects another discriminator discriminator of"):
            zoo.load(folder)
    finally:
        for file, data in kept.items():
            file.write_bytes(data)


def test_unknown_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="choose vae, flow, mmd-gan"):
        train_beyond_images("gan", tmp_path)
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        train_beyond_images("vae", tmp_path, device="gpu")


@pytest.fixture(scope="module")
def judge():
    real = images.from_bytes(NOISE.pixels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        network = Classifier(8)
    return {
        "judge": judge_against(real, classifier_extractor(network), name="noise"),
        "held_out": real,
    }


def test_a_models_lab_computes_its_logits(folder, judge):
    """In bfloat16 the logits and the samples are those of single precision, but for a few hundredths."""
    pair, lab = zoo.load(folder), open_model_lab(folder, **judge)
    x, logits = images.from_bytes(NOISE.pixels[:8]), logits_of(pair)
    logits[ALONG] = pair.networks["along"]
    assert lab.logits.keys() == logits.keys()
    with torch.no_grad():
        for name, logit in logits.items():
            torch.testing.assert_close(lab.logits[name](x), logit(x), rtol=0.05, atol=0.05)
        z = torch.randn(4, *pair.prior.batch_shape, generator=seeded())
        difference = lab.pair.generator(z) - pair.generator(z)
    assert difference.abs().mean() < 0.02
    assert pair.generator.state_dict().keys() == zoo.load(folder).generator.state_dict().keys()


def test_the_table_of_each_model(folder, judge, tmp_path, monkeypatch):
    """Every row, and the share of the distance that is gone; a model that the zoo lacks is passed over."""
    model = folder.name.removeprefix("cifar10-")
    monkeypatch.setattr(tables, "NUM_STEPS", 2)
    monkeypatch.setattr(tables, "ALONG_STEPS", 2)
    monkeypatch.setattr(tables, "IMAGE_MODELS", {model: None, "another": None})
    monkeypatch.setitem(tables.SETTINGS, "another", (0.1, 0.01, 0.1))
    said = []
    settings = {"num_samples": 8, "num_seeds": 2, "ledger": tmp_path / "ledger.json", **judge}
    result = reproduce_beyond_images(say=said.append, **settings)
    [table] = result["tables"]
    assert said == ["the zoo has no cifar10-another: passed over"]
    assert table["experiment"] == folder.name
    assert table["pair"]["gan"] == GAN
    rows = beyond_image_rows(model)
    assert [(row["method"], row["logit"]) for row in table["rows"]] == [
        ("base", ""),
        *((row.method, row.logit) for row in rows),
    ]
    base, *refined = table["rows"]
    assert base["metrics"]["fall"] == {"mean": 0.0, "standard_error": 0.0}
    assert base["metrics"]["gradient_evaluations"]["mean"] == 0
    runs = {}
    for key, [run] in json.loads((tmp_path / "ledger.json").read_text()).items():
        head, seed, *_ = json.loads(key)
        runs[head["method"], head["logit"], seed] = run["frechet_distance"]
    for row in refined:
        assert row["metrics"]["gradient_evaluations"]["mean"] == pytest.approx(2, abs=1)
        falls = [
            1 - runs[row["method"], row["logit"], seed] / runs["base", "", seed] for seed in (0, 1)
        ]
        assert row["metrics"]["fall"]["mean"] == pytest.approx(sum(falls) / 2)
        assert {"frechet_distance", "inception_score", "precision"} <= set(row["metrics"])
    assert table["real"]["frechet_distance"]["mean"] >= 0
    assert json.loads(json.dumps(result)) == result
    assert reproduce_beyond_images(**settings) == result


def test_an_empty_table_is_refused(judge):
    for few in ({"num_seeds": 0}, {"num_samples": 3}):
        with pytest.raises(ValueError, match="at least 1 seed and 4 images"):
            reproduce_beyond_images(judge=judge, held_out=torch.zeros(4, 3, 32, 32), **few)


def test_the_rows_are_the_methods_with_each_logit():
    rows = beyond_image_rows("flow")
    *latent, last = rows
    assert all(isinstance(row, Row) and row.space == "latent" for row in latent)
    assert {row.logit for row in latent} == {"corrected", "fitted", "uncorrected"}
    assert len(latent) == 6
    assert (last.logit, last.space) == (ALONG, "data")


def test_the_shipped_sizes_fit_their_budget():
    """Each network of the real recipes, in half precision: under 3 MB."""
    with torch.device("meta"):
        networks: list[nn.Module] = [
            ImageEncoder(64),
            ImageDecoder(64),
            ImageFlow(32, width=48, num_couplings=6),
            DCGANDiscriminator(256, num_features=16),
        ]
    for network in networks:
        assert sum(p.numel() for p in network.parameters()) * 2 < 3e6
