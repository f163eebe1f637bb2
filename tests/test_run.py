"""The loop, and refinement in batches that a kill cannot spoil."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from laws import CHAINS, identity, normal_prior, seeded, standard_normal, tilted_normal
from safetensors.torch import load_file, save_file

from logitflow import LatentTarget, refine, run
from logitflow.run import seeded_generator
from logitflow.samplers import gradient_flow, langevin

SIZES = {"num_samples": 23, "num_steps": 3, "batch_size": 10, "seed": 5}


def mala():
    return langevin(tilted_normal(), step_size=0.3, adjust=True)


def assert_same(a, b):
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.z, b.z)
    assert all(map(torch.equal, a.info, b.info))


def tree(folder):
    """Each file's name, content and time of writing."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.iterdir())}


# --- run --------------------------------------------------------------------------------------------


def test_the_callback_sees_every_step():
    seen = []
    state = run(
        mala(),
        standard_normal(5),
        num_steps=4,
        generator=seeded(),
        callback=lambda *step: seen.append(step),
    )
    assert [k for k, _, _ in seen] == [1, 2, 3, 4]
    assert seen[-1][1] is state
    path = [standard_normal(5), *(s.z for _, s, _ in seen)]
    for before, (_, after, info) in zip(path, seen, strict=False):
        moved = (after.z - before).norm(dim=1).mean()
        torch.testing.assert_close(info.step_norm, moved)


def test_what_the_callback_raises_ends_the_run():
    def stop(step, state, info):
        if step == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        run(mala(), standard_normal(5), num_steps=4, generator=seeded(), callback=stop)


def test_a_long_run_shows_its_progress_and_a_short_one_does_not(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    run(mala(), standard_normal(5), num_steps=3, generator=seeded())
    assert capsys.readouterr().err == ""
    pause = lambda *_: time.sleep(0.75)  # noqa: E731
    run(mala(), standard_normal(5), num_steps=4, generator=seeded(), callback=pause)
    assert "run:" in capsys.readouterr().err


# --- refine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_refine_is_run_batch_by_batch(name):
    target = tilted_normal()
    sampler = CHAINS[name](target)
    result = refine(target, sampler, **SIZES)
    assert result.x.shape == result.z.shape == (23, 2)
    ends = []
    for b, size in enumerate((10, 10, 3)):
        rng = seeded_generator(SIZES["seed"], b)
        start = torch.randn(size, 2, generator=rng, dtype=torch.float64)
        ends.append(run(sampler, start, num_steps=3, generator=rng).z)
    assert torch.equal(result.z, torch.cat(ends))
    torch.testing.assert_close(result.x, target.generate(result.z))
    assert not result.x.requires_grad


def test_seeds_and_batches_have_streams_of_their_own():
    results = [refine(tilted_normal(), mala(), **{**SIZES, "seed": seed}) for seed in (5, 5, 6)]
    assert_same(results[0], results[1])
    assert not torch.equal(results[0].z, results[2].z)
    assert not torch.equal(results[0].z[:3], results[0].z[10:13])
    firsts = {
        torch.rand((), generator=seeded_generator(s, b)).item() for s in range(9) for b in range(9)
    }
    assert len(firsts) == 81


def test_the_global_generator_plays_no_part():
    state = torch.get_rng_state()
    refine(tilted_normal(), mala(), **SIZES)
    assert torch.equal(torch.get_rng_state(), state)


def test_refine_moves_the_points_it_is_given_in_their_order():
    target = LatentTarget(identity, lambda x: x[:, 0], None)  # data space
    z = standard_normal(23)
    kept = z.clone()
    result = refine(target, gradient_flow(target, step_size=0.5, gamma=0), z=z, **SIZES)
    torch.testing.assert_close(result.x, z + torch.tensor([1.5, 0.0]))
    assert torch.equal(z, kept)
    still = refine(target, gradient_flow(target), z=z, **{**SIZES, "num_steps": 0})
    assert torch.equal(still.x, z)


def test_info_is_averaged_over_steps_and_its_counts_are_summed():
    def logit(x):
        return x[:, 1] * torch.where(x[:, 0] > 10, torch.nan, 1.0)

    target = LatentTarget(identity, logit, normal_prior())
    z = standard_normal(23)
    z[[1, 4, 22], 0] = 50
    info = refine(target, gradient_flow(target, step_size=0.5, gamma=0), z=z, **SIZES).info
    assert info.num_nonfinite == 3 * 3
    assert info.acceptance_rate == 1
    torch.testing.assert_close(float(info.step_norm), 0.5 * (8 + 10 + 2) / 23)


def test_finished_shards_stay_when_a_later_batch_fails(tmp_path):
    broken = []

    def logit(x):
        return x.sum(1) * (torch.nan if broken and len(x) == 3 else 1.0)

    target = LatentTarget(identity, logit, normal_prior())
    sampler = langevin(target, step_size=0.1)
    broken.append(True)
    with pytest.raises(FloatingPointError, match="all 3 points"):
        refine(target, sampler, folder=tmp_path, **SIZES)
    assert {"shard-00000.safetensors", "shard-00001.safetensors"} <= set(os.listdir(tmp_path))
    broken.clear()
    result = refine(target, sampler, folder=tmp_path, **SIZES)
    assert_same(result, refine(target, sampler, **SIZES))


# --- the folder -------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    """A folder with a finished run, and its result."""
    folder = tmp_path / "a folder" / "run"
    return folder, refine(tilted_normal(), mala(), folder=folder, **SIZES)


def test_a_folder_holds_the_settings_and_a_shard_a_batch(finished):
    folder, result = finished
    assert_same(result, refine(tilted_normal(), mala(), **SIZES))
    shards = [f"shard-{b:05d}.safetensors" for b in range(3)]
    assert sorted(os.listdir(folder)) == ["run.json", *shards]
    settings = json.loads((folder / "run.json").read_text())
    assert settings["sampler"] == "langevin(step_size=0.3, adjust=True)"
    assert {name: settings[name] for name in SIZES} == SIZES
    parts = [load_file(folder / shard) for shard in shards]
    assert torch.equal(torch.cat([part["x"] for part in parts]), result.x)


def test_a_finished_run_is_read_again_and_not_made_again(finished):
    folder, result = finished
    before = tree(folder)
    assert_same(refine(tilted_normal(), mala(), folder=str(folder), **SIZES), result)
    assert tree(folder) == before


def test_missing_shards_alone_are_made_again(finished):
    folder, result = finished
    before = tree(folder)
    (folder / "shard-00001.safetensors").unlink()
    assert_same(refine(tilted_normal(), mala(), folder=folder, **SIZES), result)
    after = tree(folder)
    assert {name for name in after if after[name] != before[name]} == {"shard-00001.safetensors"}
    assert after["shard-00001.safetensors"][0] == before["shard-00001.safetensors"][0]


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "a field less"])
def test_a_damaged_shard_is_made_again_with_a_warning(finished, damage):
    folder, result = finished
    path = folder / "shard-00002.safetensors"
    data = path.read_bytes()
    if damage == "a field less":
        save_file({"x": result.x[20:].clone()}, path)
    else:
        path.write_bytes({"truncated": data[:-9], "empty": b"", "noise": b"\x07" * 999}[damage])
    with pytest.warns(UserWarning, match=r"shard-00002.safetensors is damaged and is made again"):
        again = refine(tilted_normal(), mala(), folder=folder, **SIZES)
    assert_same(again, result)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "value"), [("num_samples", 22), ("num_steps", 4), ("batch_size", 9), ("seed", 6)]
)
def test_a_folder_of_other_settings_is_refused_and_left_alone(finished, name, value):
    folder, _ = finished
    before = tree(folder)
    with pytest.raises(
        ValueError, match=f"holds a run with another .*{name}.* name an empty folder"
    ):
        refine(tilted_normal(), mala(), folder=folder, **{**SIZES, name: value})
    assert tree(folder) == before


def test_a_folder_of_another_sampler_target_or_start_is_refused(finished):
    folder, _ = finished
    others = [
        (tilted_normal(), langevin(tilted_normal(), step_size=0.2, adjust=True), {}, "sampler"),
        (tilted_normal(), langevin(tilted_normal(), step_size=0.3), {}, "sampler"),
        (tilted_normal(shift=1.0), mala(), {}, "generator, logit or starting points"),
        (tilted_normal(), mala(), {"z": standard_normal(23)}, "starting points"),
    ]
    before = tree(folder)
    for target, sampler, more, what in others:
        with pytest.raises(ValueError, match=f"holds a run with another .*{what}"):
            refine(target, sampler, folder=folder, **SIZES, **more)
    assert tree(folder) == before


def test_data_space_is_kept_in_a_folder_too(tmp_path):
    """There x is z, and safetensors refuses two names for the same memory."""
    target = LatentTarget(identity, lambda x: -x.square().sum(1), None)
    z, sampler = standard_normal(23), gradient_flow(target)
    first = refine(target, sampler, z=z, folder=tmp_path, **SIZES)
    assert_same(refine(target, sampler, z=z, folder=tmp_path, **SIZES), first)


# --- killed -----------------------------------------------------------------------------------------

SLOW = """
import sys, time
import torch
from laws import tilted_normal
from logitflow import LatentTarget, refine
from logitflow.samplers import langevin
torch.set_num_threads(1)
target = tilted_normal()
def slow(x):
    time.sleep(0.02)
    return target.logit(x)
slowed = LatentTarget(target.generator, slow, target.prior)
sampler = langevin(slowed, step_size=0.3, adjust=True)
refine(slowed, sampler, num_samples=80, num_steps=4, batch_size=10, seed=5, folder=sys.argv[1])
"""


def test_a_killed_run_continues_to_the_very_same_result(tmp_path):
    sizes = {"num_samples": 80, "num_steps": 4, "batch_size": 10, "seed": 5}
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "shard-00002.safetensors").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = tree(tmp_path)
    shards = [name for name in left if name.startswith("shard")]
    assert 3 <= len(shards) < 8
    for name in shards:  # each is whole
        assert load_file(tmp_path / name)["x"].shape == (10, 2)
    resumed = refine(tilted_normal(), mala(), folder=tmp_path, **sizes)
    assert_same(resumed, refine(tilted_normal(), mala(), **sizes))
    now = tree(tmp_path)
    assert {name: now[name] for name in shards} == {name: left[name] for name in shards}
