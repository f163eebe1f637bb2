"""`logitflow bench`: its parser, and what it runs."""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from logitflow.bench import bench, pairs
from logitflow.cli_options import add_command, add_device, count
from logitflow.commands import typed
from logitflow.device import choose
from logitflow.files import write_atomically
from logitflow.processes import world_size
from logitflow.reproduce import hardware


def add_bench(subparsers: Any) -> None:
    """Add `bench`."""
    parser = add_command(
        subparsers,
        "bench",
        run_bench,
        "measure how fast refinement runs here: the textbook loop, each rewrite added in turn, and the "
        "machine's own peak, for a pair of the papers' size and the shipped one",
        "logitflow bench --out bench.json",
    )
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="JSON file to write")
    parser.add_argument("--batch-size", type=count, default=16, help="latents moved together")
    parser.add_argument(
        "--growth",
        type=count,
        nargs="*",
        default=[1, 4, 64],
        help="further batch sizes, to see how the rate grows",
    )
    parser.add_argument("--repeats", type=count, default=5, help="timings, whose median counts")
    add_device(parser)
    parser.add_argument(
        "--no-compile",
        dest="compile",
        action="store_false",
        help="leave torch.compile out, which takes a minute or two",
    )


def run_bench(options: argparse.Namespace) -> None:
    """Measure, print the table and write it.

    Raises:
        ValueError: several processes share the work.
    """
    if world_size() > 1:
        raise ValueError("bench measures one process: run it without torchrun")
    settings = {"batch_size": options.batch_size, "repeats": options.repeats}
    growth = " ".join(map(str, options.growth))
    command = typed("bench", **settings, growth=growth, device=options.device)
    result = bench(
        pairs(),
        **settings,
        growth=tuple(options.growth),
        device=options.device,
        compile=options.compile,
        say=print,
        command=command if options.compile else f"{command} --no-compile",
        hardware=machine(choose(options.device)),
    )
    write_atomically(options.out, json.dumps(result, indent=1, ensure_ascii=False).encode())
    print(f"wrote {options.out}")


def machine(device: torch.device) -> str:
    """What the work is done on, in words; of a CPU also its name."""
    return hardware(device) if device.type == "cuda" else f"{_cpu()}, {hardware()}"


def _cpu() -> str:
    """The processor's name, and whether it has matrix units for bfloat16 (AMX)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine()).strip()
    return f"{name} with AMX" if "amx_bf16" in facts.get("flags", "") else name
