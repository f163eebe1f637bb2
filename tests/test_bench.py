"""The benchmark: its rungs are one function, its shares add up, and a request it cannot meet is refused."""

import json
import math

import pytest
import torch
from torch import nn

from logitflow import bench as benchmark
from logitflow import cli_bench
from logitflow.bench import bench, ladder, random_pair
from logitflow.bench.ladder import PRESETS
from logitflow.bench.timing import breakdown, convolutions_alone, interleaved, matmul_peak
from logitflow.models import DCGANDiscriminator, DCGANGenerator, ResNetGenerator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs():
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return {
            "one": (ResNetGenerator(8).eval(), DCGANDiscriminator(8).eval()),
            "two": (DCGANGenerator(8).eval(), DCGANDiscriminator(8).eval()),
        }


@pytest.fixture(scope="module")
def result(pairs):
    return bench(pairs, batch_size=2, growth=(1,), repeats=1, compile=False, command="a command")


def test_result_is_plain_and_complete(result, pairs):
    json.dumps(result, allow_nan=False)
    assert result["command"] == "a command"
    assert result["pairs"].keys() == pairs.keys()
    for measured in result["pairs"].values():
        rows = measured["rungs"]
        assert len(rows) == 7
        assert rows[0]["ratio"] == 1
        first = rows[0]["sample_steps_per_second"]
        for row in rows:
            assert row["sample_steps_per_second"] > 0
            assert row["ratio"] == pytest.approx(row["sample_steps_per_second"] / first)
            assert row["share_of_convolution_peak"] > 0
        # float32 rungs are the same function up to rounding, and the last one nearly
        assert all(row["gradient_error"] < 1e-4 for row in rows[:6])
        assert rows[6]["gradient_error"] > 0
        assert [g["batch_size"] for g in measured["growth"]] == [1, 2]
        for parts in measured["parts"].values():
            assert all(value >= 0 for value in parts.values())
    assert result["pairs"]["two"]["networks"] == ["DCGANGenerator(8)", "DCGANDiscriminator(8)"]


def test_the_pairs_stay_as_they_are(pairs, result):
    for pair in pairs.values():
        for network in pair:
            assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_every_rung_takes_the_same_step(pairs):
    z = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    rng = torch.Generator()
    steps = []
    for rung in ladder(pairs["one"], rng, compile=False)[:6]:  # those in float32
        rng.manual_seed(2)  # the same noise for all
        steps.append(rung.step(z))
    assert not torch.equal(steps[0], z)
    for step in steps[1:]:
        torch.testing.assert_close(step, steps[0], rtol=1e-4, atol=1e-5)


def test_multiplications_are_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),  # 9·3·5 at 36 places
        nn.ConvTranspose2d(5, 2, 4, stride=2, padding=1),  # 16·5·2 at 36 places
        nn.Flatten(),
        nn.Linear(2 * 12 * 12, 1),  # 288
    ).requires_grad_(False)
    x = torch.randn(7, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = convolutions_alone(lambda: network(x), [network], repeats=1)
    once = 7 * (36 * 9 * 15 + 36 * 16 * 10 + 288)
    assert found.gmac * 1e9 == pytest.approx(2 * once)  # forward and input gradient
    assert found.seconds > 0


def test_calls_take_turns():
    order = []
    times = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, 3, at_least=0
    )
    assert order == ["a", "b"] * 4  # once to warm up
    assert [len(values) for values in times.values()] == [3, 3]


def test_time_goes_where_the_work_is():
    a = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    parts = breakdown(lambda: [a @ a for _ in range(20)], CPU)
    assert parts["convolutions"] == max(parts.values())
    parts = breakdown(lambda: [a.clone() for _ in range(200)], CPU)
    assert parts["copies"] > max(parts["convolutions"], parts["elementwise"])
    parts = breakdown(lambda: [a.tanh() for _ in range(20)], CPU)
    assert parts["elementwise"] == max(parts.values())


def test_matmul_peak_is_a_rate():
    assert 0 < matmul_peak(CPU, torch.float32, 1, size=64) < math.inf


def test_memory_of_a_call():
    used = benchmark.peak_memory(lambda: torch.ones(25_000_000), CPU)  # 100 MB
    if used is None:
        pytest.skip("this system does not tell a process its peak memory")
    assert 80 < used < 130


def test_random_pairs_are_seeded_and_leave_the_global_generator(monkeypatch):
    preset = PRESETS["small"]._replace(networks=lambda: (ResNetGenerator(8), DCGANDiscriminator(8)))
    monkeypatch.setitem(PRESETS, "small", preset)
    before = torch.random.get_rng_state()
    one, other = random_pair("small"), random_pair("small")
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)
    assert one[0].layers[3].running_var.std() > 0


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"repeats": 0}, {"growth": (0,)}])
def test_bad_requests(pairs, bad):
    with pytest.raises(ValueError, match="at least 1"):
        bench(pairs, **bad)


def test_command_writes_its_result(pairs, tmp_path, monkeypatch, capsys):
    cli = pytest.importorskip("logitflow.cli")
    monkeypatch.setattr(cli_bench, "pairs", lambda: {"tiny": pairs["two"]})
    path = tmp_path / "bench.json"
    words = ["bench", "--out", str(path), "--batch-size", "1", "--repeats", "1", "--no-compile"]
    assert cli.main([*words, "--growth"]) == 0
    written = json.loads(path.read_text())
    assert written["command"].startswith("logitflow bench --batch-size 1")
    assert "PyTorch" in written["hardware"]
    assert "textbook loop" in capsys.readouterr().out
    assert cli.main(["bench", "--repeats", "0", "--out", str(path)]) == 2
