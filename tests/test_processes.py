"""Several processes: the same samples as one, whatever their number and whichever of them dies."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from laws import seeded, tilted_normal
from safetensors.torch import load_file
from test_training import networks, train
from torch import nn

from logitflow import LatentTarget, cli, processes, refine, zoo
from logitflow.data import Images
from logitflow.data.text import CHARACTERS
from logitflow.ledger import remembered
from logitflow.metrics import evaluate_images
from logitflow.metrics.features import moments
from logitflow.metrics.images import Extractor, Judge, Reference
from logitflow.metrics.text import ORDERS, ngram_figures, ngrams
from logitflow.models.classifier import Classifier
from logitflow.reproduce import toys
from logitflow.reproduce.table import Job, gather
from logitflow.samplers import langevin
from logitflow.training import train_classifier
from logitflow.training.checkpoints import descend

WORDS = ["refine", "25gaussians-wgan-gp", "--method", "mala", "--steps", "3"]
WORDS += ["--num-samples", "50", "--batch-size", "10", "--out"]
SIZES = {"num_samples": 80, "num_steps": 2, "batch_size": 10, "seed": 5}

# Processes are forked from one that has imported what they need: each is there in a moment.
FORK = multiprocessing.get_context("forkserver")
IMPORTS = ["pytest", "hypothesis", "scipy.stats", "torch._dynamo", "logitflow.cli"]
IMPORTS += ["torchmetrics.image.fid", "torchmetrics.image.kid", "torchmetrics.image.inception"]
FORK.set_forkserver_preload(IMPORTS)


def start(rank, world_size, port, log, work, arguments):
    """In a new process: what torchrun tells each, then the work; what it prints goes into a file."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    names |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "TQDM_DISABLE": 1}
    os.environ.update({name: str(value) for name, value in names.items()})
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    torch.set_num_threads(1)
    work(*arguments)


def together(tmp_path, number, work, *arguments):
    """Work in several processes: their exit codes and what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"process-{rank}.txt" for rank in range(number)]
    started = [
        FORK.Process(target=start, args=(rank, number, port, logs[rank], work, arguments))
        for rank in range(number)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    codes = [process.exitcode for process in started]
    return codes, [log.read_text() for log in logs]


def succeed(tmp_path, number, work, *arguments):
    """As `together`, where all must end well: what each printed."""
    codes, said = together(tmp_path, number, work, *arguments)
    assert codes == [0] * number, "\n".join(said)
    return said


# --- what they are made of --------------------------------------------------------------------------


def test_one_process_alone_has_all_the_work():
    assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
    with processes.process_group():
        assert processes.share(range(5)) == range(5)
        assert processes.gathered([1, 2]) == [1, 2]
        tensor = torch.tensor([1.0])
        processes.average([tensor])
        processes.copy_first([tensor])
        assert tensor == 1
        assert processes.part(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]


def deal():
    with processes.process_group():
        rank, n = processes.rank(), processes.world_size()
        for size in range(8):
            items = list(range(size))
            mine = [(item, rank) for item in processes.share(items)]
            assert processes.gathered(mine) == [(item, item % n) for item in items]
        x = torch.arange(8)
        assert torch.equal(torch.cat(processes.gathered([processes.part(x)])), x)
        # the mean, in the shapes and memory formats that there were
        image = torch.full((2, 3, 4, 5), float(rank)).to(memory_format=torch.channels_last)
        tensors = [torch.tensor(float(rank)), image]
        processes.average(tensors)
        for tensor in tensors:
            assert (tensor == (n - 1) / 2).all()
        assert image.is_contiguous(memory_format=torch.channels_last)
        processes.copy_first([number := torch.tensor(rank)])
        assert number == 0
        # a step down the mean of the gradients 1, 2, … of all
        weight = nn.Parameter(torch.tensor(0.0))
        descend(torch.optim.SGD([weight], lr=1.0), (rank + 1) * weight)
        assert weight.item() == -(n + 1) / 2
        with processes.alone():
            assert (processes.rank(), processes.world_size()) == (0, 1)
            assert processes.gathered([rank]) == [rank]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_is_dealt_out_comes_back_in_order(tmp_path, number):
    succeed(tmp_path, number, deal)


# --- refine -----------------------------------------------------------------------------------------


def command(*words):
    sys.exit(cli.main([str(word) for word in words]))


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """What one process, without a group, writes."""
    folder = tmp_path_factory.mktemp("one")
    assert cli.main([*WORDS, str(folder)]) == 0
    return folder


def assert_same_files(folder, other):
    names = [f"shards/shard-{b:05d}.safetensors" for b in range(5)]
    for name in ["samples.safetensors", *names]:
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_processes_makes_the_same_samples(tmp_path, number, by_one):
    said = succeed(tmp_path, number, command, *WORDS, tmp_path / "out")
    assert_same_files(by_one, tmp_path / "out")
    assert said[0].startswith(f"wrote {tmp_path / 'out' / 'samples.safetensors'}")
    assert set(said[1:]) <= {""}  # the first alone prints


def test_a_sample_depends_on_the_seed_and_its_number_alone(tmp_path, by_one):
    """Of two runs with batches of the same size, the shorter has the first samples of the longer."""
    shorter = [word if word != "50" else "30" for word in WORDS]
    assert cli.main([*shorter, str(tmp_path)]) == 0
    few, many = (load_file(folder / "samples.safetensors") for folder in (tmp_path, by_one))
    assert torch.equal(few["x"], many["x"][:30])
    assert torch.equal(few["z"], many["z"][:30])


def test_in_data_space_too(tmp_path):
    words = [*WORDS, tmp_path / "one", "--space", "data"]
    assert cli.main([str(word) for word in words]) == 0
    succeed(tmp_path, 2, command, *WORDS, tmp_path / "out", "--space", "data")
    assert_same_files(tmp_path / "one", tmp_path / "out")


def refine_tilted(folder, mortal=False):
    """Refine; if mortal, the second process is killed in its second batch."""
    target = tilted_normal()

    def logit(x):
        done = (folder / "shard-00001.safetensors").exists()
        if mortal and done and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return target.logit(x)

    watched = LatentTarget(target.generator, logit, target.prior)
    sampler = langevin(watched, step_size=0.3, adjust=True)
    with processes.process_group():
        result = refine(watched, sampler, folder=folder, **SIZES)
        assert len(processes.gathered([len(result.x)])) == processes.world_size()
    return result


def test_a_killed_process_leaves_shards_from_which_others_continue(tmp_path):
    codes, said = together(tmp_path, 3, refine_tilted, tmp_path / "run", True)
    assert codes == [1, -signal.SIGKILL, 1]
    for words in (said[0], said[2]):
        assert "ConnectionError: another process has ended" in words
        assert "the same command, with any number of processes, goes on from here" in words
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("shard-*")}
    assert {path.name[6:11] for path in left} == {
        "00000",
        "00001",
        "00002",
        "00003",
        "00005",
        "00006",
    }
    succeed(tmp_path, 2, refine_tilted, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in left} == left
    continued, anew = refine_tilted(tmp_path / "run"), refine_tilted(tmp_path / "anew")
    assert torch.equal(continued.x, anew.x)
    assert torch.equal(continued.z, anew.z)
    assert all(map(torch.equal, continued.info, anew.info))


def test_torchrun_itself(tmp_path, by_one):
    """The launcher and its two processes import PyTorch each, which takes a busy machine minutes."""
    # --standalone: a port of its own, though another launcher runs beside
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "logitflow"]
    with (tmp_path / "said.txt").open("w+") as said:
        launcher = subprocess.Popen(
            [sys.executable, "-m", *launch, *WORDS, str(tmp_path / "out")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            code = launcher.wait(timeout=1200)
        finally:
            launcher.terminate()  # not kill: asked to end, it ends its processes too
            launcher.wait(timeout=60)
        said.seek(0)
        words = said.read()
    assert code == 0, words
    assert words.count("wrote") == 1
    assert_same_files(by_one, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["refine", "no-such-pair", "--out", "x"], "the zoo has no 'no-such-pair'"),
        (["bench", "--out", "x"], "bench measures one process: run it without torchrun"),
    ],
    ids=["refine", "bench"],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, words, sentence):
    codes, said = together(tmp_path, 2, command, *words)
    assert codes == [2, 2]
    assert all(line.startswith(f"logitflow: {sentence}") for line in said)


# --- evaluate ---------------------------------------------------------------------------------------

CLASSES = ("a", "b", "c")


def judge():
    weights = torch.randn(192, 6, generator=seeded(1)) / 10

    def extract(x):
        features = x.flatten(1) @ weights
        return features, features[:, :3]

    real, _ = extract(torch.rand(40, 3, 8, 8, generator=seeded(2)) * 2 - 1)
    reference = Reference("noise", moments(real), real)
    return Judge(Extractor("linear", extract, CLASSES), reference)


def images():
    return torch.rand(25, 3, 8, 8, generator=seeded(3)) * 1.8 - 0.9


def texts():
    codes = torch.randint(len(CHARACTERS), (2, 30, 32), generator=seeded(4), dtype=torch.uint8)
    held_out = tuple(ngrams(codes[1], n) for n in ORDERS)
    return ngram_figures(codes[0], held_out)


def evaluate(out):
    with processes.process_group():
        figures = {"images": evaluate_images(images(), judge()), "text": texts()}
        assert all(other == figures for other in processes.gathered([figures]))
        if processes.is_first():
            Path(out).write_text(json.dumps(figures))


@pytest.mark.parametrize("number", [2, 3])
def test_any_number_of_processes_finds_the_same_figures(tmp_path, number):
    succeed(tmp_path, number, evaluate, tmp_path / "figures.json")
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["text"] == texts()
    expected = evaluate_images(images(), judge())
    assert found["images"].keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, str):
            assert found["images"][name] == value
        else:  # sums are taken in another order
            assert found["images"][name] == pytest.approx(value, rel=1e-5), name
    assert found["images"]["n"] == 25


def test_the_command_line_measures_points_alike(tmp_path, by_one):
    words = ["evaluate", by_one / "samples.safetensors", "--data", "25gaussians", "--out"]
    assert cli.main([str(word) for word in [*words, tmp_path / "one.json"]]) == 0
    said = succeed(tmp_path, 2, command, *words, tmp_path / "two.json")
    assert "energy distance" in said[0]
    assert said[1] == ""
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert (one["figures"], one["real"]) == (two["figures"], two["real"])


# --- reproduce --------------------------------------------------------------------------------------

JOBS = [Job(None, seed, 1) for seed in range(40)]


def tabulate(ledger):
    with processes.process_group():
        rank = processes.rank()

        def work(job):
            assert processes.world_size() == 1  # each job is done alone
            print(job.seed)
            return remembered(ledger, str(job.seed), lambda: [{"seed": job.seed, "by": rank}])

        lines, _ = gather(JOBS, work, desc="test")
        assert lines[0].seeds == list(range(40))
        number = processes.world_size()
        assert lines[0].runs == [{"seed": seed, "by": seed % number} for seed in range(40)]


def test_processes_share_a_table_and_its_ledger(tmp_path):
    said = succeed(tmp_path, 3, tabulate, tmp_path / "ledger.json")
    done = [[int(seed) for seed in words.split()] for words in said]
    assert done == [list(range(rank, 40, 3)) for rank in range(3)]
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert sorted(map(int, ledger)) == list(range(40))  # none was lost where two wrote at a time


def reproduce_three_rows(out):
    few = [row for row in toys.rows() if row.stages][:3]
    toys.rows = lambda: few
    sizes = ["--num-samples", "40", "--seeds", "2"]
    sys.exit(cli.main(["reproduce", "25gaussians", *sizes, "--out", str(out)]))


def test_the_command_line_tabulates_alike(tmp_path):
    tables = []
    for number in (1, 2):
        out = tmp_path / str(number)
        succeed(tmp_path, number, reproduce_three_rows, out)
        tables.append(json.loads((out / "25gaussians.json").read_text()))
        assert {path.name for path in out.iterdir()} == {"25gaussians.json", "25gaussians.png"}
    one, two = tables
    assert two["hardware"] == f"2 processes on {one['hardware']}"
    assert len(one["rows"]) == 4
    for row, twin in zip(one["rows"], two["rows"], strict=True):
        for metrics in (row["metrics"], twin["metrics"]):
            del metrics["seconds"]
        assert row == twin


# --- train ------------------------------------------------------------------------------------------


def train_pair(checkpoint, stop_at=None):
    """Train; if asked to, the first process stops after a checkpoint."""

    def callback(step, loss):
        print(step)
        if step == stop_at:
            sys.exit(3)

    with processes.process_group():
        pair = train(
            networks(seed=processes.rank()),  # the first one's count
            num_steps=6,
            batch_size=33,
            checkpoint=checkpoint,
            checkpoint_every=3,
            callback=callback,
        )
        weights = torch.cat(
            [p.detach().flatten() for network in pair for p in network.parameters()]
        )
        assert all(torch.equal(other, weights) for other in processes.gathered([weights]))


@pytest.mark.parametrize("number", [2, 3])
def test_processes_train_one_pair(tmp_path, number):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    said = succeed(tmp_path, number, train_pair, whole)
    assert said[0].split() == ["3", "6"]
    assert set(said[1:]) == {""}
    codes, _ = together(tmp_path, number, train_pair, cut, 3)
    assert codes == [3, *[1] * (number - 1)]
    assert load_file(cut)["step"] == 3
    succeed(tmp_path, number, train_pair, cut)
    assert whole.read_bytes() == cut.read_bytes()


def test_training_goes_on_with_another_number_of_processes(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    together(tmp_path, 3, train_pair, checkpoint, 3)
    train_pair(checkpoint)
    assert load_file(checkpoint)["step"] == 6


def test_the_command_line_trains_one_pair_that_loads(tmp_path):
    words = ["train", "swissroll", "--steps", 2, "--fit-steps", 2, "--out", tmp_path / "pair"]
    said = succeed(tmp_path, 2, command, *words)
    assert set(said[1:]) == {""}
    assert zoo.load(tmp_path / "pair").fitted is not None
    assert not (tmp_path / "pair" / "checkpoint.safetensors").exists()


def train_judge(checkpoint):
    images = Images(
        torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=seeded(7)),
        torch.arange(30) % 10,
        "noise",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(8)
    with processes.process_group():
        train_classifier(network, images, num_epochs=2, batch_size=10, checkpoint=checkpoint)
        weights = torch.cat([p.detach().flatten() for p in network.parameters()])
        assert all(torch.equal(other, weights) for other in processes.gathered([weights]))


def test_processes_train_one_classifier(tmp_path):
    for name in ("one", "other"):
        succeed(tmp_path, 2, train_judge, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "other.safetensors"
    ).read_bytes()
