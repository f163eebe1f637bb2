"""Train, refine, evaluate and bench the pairs of the papers' size, in slices of a few minutes.

For a machine with a GPU that is lent for minutes at a time, and cannot reach the network. Here:

    python tools/paper_scale.py pack --data ../shared/data --out paper.tar

There, again and again until it says that all is done:

    tar xf paper.tar
    PYTHONPATH=toolkit python tools/paper_scale.py run --minutes 10 --out runs/paper

Packages that the other machine lacks travel as wheels: `pip download --no-deps --only-binary=:all: -d wheels …`
and `pack --wheels wheels` here, `pip install --no-index --no-deps wheels/*.whl` there.

A slice that is over ends with code 130, and the next one goes on where it stopped: training at its last
checkpoint, refining at its last shard. Several GPUs:
`torchrun --standalone --nproc-per-node 8 tools/paper_scale.py run …`.
"""

import argparse
import os
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DATA = ("cifar10/train.parquet", "cifar10/test.parquet", "lm1b/train.txt", "lm1b/test.txt")
CODE = ("toolkit/logitflow", "tools/paper_scale.py")
MOST = 64 * 2**20
"""What a pack may weigh, in bytes."""


class Stage(NamedTuple):
    """A command of `logitflow`, and the file that is there when it is done."""

    words: list[str]
    made: Path


def stages(out: Path, what: Sequence[str], num_samples: int, training: list[str]) -> list[Stage]:
    """All that there is to do, in turn.

    Args:
        out: folder for all of it.
        what: of "cifar10", "text" and "bench", those wanted.
        num_samples: samples to refine of each pair; 50,000 in the papers.
        training: further options of `logitflow train`.
    """
    todo = []
    for name in [name for name in what if name != "bench"]:
        pair, refined, figures = out / name, out / f"{name}-refined", out / f"{name}.json"
        train = ["train", name, "--preset", "paper", *training, "--out", str(pair)]
        refine = ["refine", str(pair), "--num-samples", str(num_samples), "--batch-size", "500"]
        samples = str(refined / "samples.safetensors")
        todo += [
            Stage(train, pair / "card.json"),
            Stage([*refine, "--out", str(refined)], refined / "refine.json"),
            Stage(["evaluate", samples, "--data", name, "--out", str(figures)], figures),
        ]
    if "bench" in what:
        sizes = ["--batch-size", "256", "--growth", "1", "16", "64", "1024"]
        made = out / "bench.json"
        todo.append(Stage(["bench", *sizes, "--out", str(made)], made))
    return todo


def run(todo: Sequence[Stage], minutes: float) -> int:
    """Do what is not done yet, for so many minutes; returns 0 when all is done, 130 when the time is over."""
    from logitflow.cli import main as logitflow  # which takes a while to import

    signal.signal(
        signal.SIGALRM, signal.default_int_handler
    )  # as Ctrl-C, which every command expects
    # again every half a minute: an interrupt that falls into a finaliser is lost
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 30.0)
    over = time.monotonic() + 60 * minutes
    try:
        for stage in todo:
            if stage.made.exists():
                continue
            if time.monotonic() > over:
                return 130
            print("$ logitflow", *stage.words, flush=True)
            if code := logitflow(stage.words):
                return code
    except KeyboardInterrupt:  # between two commands
        return 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    print("all is done:", *(str(stage.made) for stage in todo))
    return 0


def pack(data: Path, out: Path, wheels: Path | None = None) -> None:
    """Put the package, this script and the data into one file.

    Args:
        data: folder with the files that `DATA` names.
        out: tar file to write.
        wheels: folder of Python packages that the other machine lacks, or None.

    Raises:
        FileNotFoundError: the folder of data lacks a file.
        ValueError: the pack is too large; nothing is left.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w") as archive:
        for name in CODE:
            archive.add(ROOT / name, name, filter=_needed)
        for name in DATA:
            archive.add(data / name, f"data/{name}")
        if wheels is not None:
            archive.add(wheels, "wheels")
    if (size := out.stat().st_size) > MOST:
        out.unlink()
        raise ValueError(
            f"the pack has {size / 2**20:.0f} MiB, more than {MOST // 2**20}: pack less"
        )
    print(f"wrote {out}: {size / 2**20:.1f} MiB")


def _needed(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """All but caches and the shipped models that are no GAN, which nothing here opens."""
    unused = "__pycache__" in entry.name or entry.name.endswith(("-vae", "-flow", "-mmd-gan"))
    return None if unused else entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack here, or run there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put all that is needed into one file")
    packing.add_argument("--data", type=Path, required=True, help="folder with cifar10/ and lm1b/")
    packing.add_argument("--out", type=Path, required=True, help="tar file to write")
    packing.add_argument("--wheels", type=Path, help="folder of packages that are missing there")
    running = commands.add_parser("run", help="do a slice of the work")
    running.add_argument("--minutes", type=float, default=10.0, help="how long the slice is")
    running.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    running.add_argument("--num-samples", type=int, default=50_000, help="to refine of each pair")
    running.add_argument(
        "--what",
        nargs="+",
        choices=("cifar10", "text", "bench"),
        default=["cifar10", "text", "bench"],
        help="in this order; not given: all",
    )
    for name in ("steps", "fit-steps"):
        running.add_argument(f"--{name}", help="as `logitflow train`'s; not given: the preset's")
    options = parser.parse_args(arguments)
    if options.command == "pack":
        try:
            pack(options.data, options.out, options.wheels)
        except (OSError, ValueError) as error:
            print(f"paper_scale: {error}", file=sys.stderr)
            return 2
        return 0
    if (ROOT / "data").is_dir():
        os.environ.setdefault("LOGITFLOW_DATA", str(ROOT / "data"))
    given = {"--steps": options.steps, "--fit-steps": options.fit_steps}
    training = [word for name, n in given.items() if n is not None for word in (name, n)]
    return run(stages(options.out, options.what, options.num_samples, training), options.minutes)


if __name__ == "__main__":
    sys.exit(main())
