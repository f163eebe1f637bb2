"""Measure what it costs to share refinement among processes, and write book/results/processes.json.

python tools/measure_processes.py

The same images are refined by one process and by two, one thread each, under `torchrun`. Seconds of processor
time are told beside those of the clock: on a machine that others use too, only the former mean much.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAIR = "cifar10-sn-resnet-small"
SIZES: dict[str, Any] = {"num_samples": 128, "num_steps": 5, "batch_size": 16}
SENT = 64 * 2**20
"""Bytes by which the rate of sending is measured."""


def refine_and_send(out: Path) -> None:
    """In each process: time its start, its share of the work, and sending; the first writes all."""
    begun = {"clock": time.time() - float(os.environ["LAUNCHED"]), "processor": time.process_time()}
    import torch  # what a process has to import is a part of its start

    from logitflow import LatentTarget, refine, zoo
    from logitflow.inference import fast
    from logitflow.processes import gathered, is_first, process_group, world_size
    from logitflow.samplers import gradient_flow

    torch.set_num_threads(1)
    seconds: dict[str, dict[str, float]] = {}

    def lap(name: str) -> None:
        now = {"clock": time.perf_counter(), "processor": time.process_time()}
        seconds[name] = {kind: now[kind] - last[kind] for kind in now}
        last.update(now)

    last = {"clock": time.perf_counter(), "processor": 0.0}
    with process_group():
        pair = zoo.load(PAIR)
        target = LatentTarget(fast(pair.generator), fast(pair.discriminator), pair.prior)
        sampler = gradient_flow(target, step_size=0.1, gamma=0.01)
        refine(target, sampler, num_samples=16, num_steps=1, batch_size=16)  # warm
        lap("start")
        gathered([None])  # all begin together
        lap("wait")
        refine(target, sampler, **SIZES)
        lap("refine")
        blob = torch.zeros(SENT // world_size(), dtype=torch.uint8)
        gathered([None])
        lap("rest")
        gathered([blob])
        lap("send")
        seconds["start"]["clock"] += begun["clock"]
        everyone = gathered([seconds])
        if is_first():
            from logitflow.cli_bench import machine

            found = {"hardware": machine(torch.device("cpu")), "processes": everyone}
            out.write_text(json.dumps(found))


def launch(number: int, out: Path) -> dict[str, object]:
    """Run `refine_and_send` in so many processes, and gather what they measured."""
    words = ["torch.distributed.run", "--nproc-per-node", str(number), __file__, "--each", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment["LAUNCHED"] = str(time.time())
    subprocess.run([sys.executable, "-m", *words], check=True, env=environment)
    found = json.loads(out.read_text())
    everyone = found["processes"]
    return {
        "hardware": found["hardware"],
        "processes": number,
        "start_clock": max(each["start"]["clock"] for each in everyone),
        "start_processor": sum(each["start"]["processor"] for each in everyone) / number,
        "refine_clock": max(each["refine"]["clock"] for each in everyone),
        "refine_processor": sum(each["refine"]["processor"] for each in everyone),
        "send_processor": sum(each["send"]["processor"] for each in everyone),
        "send_clock": max(each["send"]["clock"] for each in everyone),
    }


def main() -> None:
    """Measure one process and two, or, in each of them, do the work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    options = parser.parse_args()
    if options.each is not None:
        refine_and_send(options.each)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            launch(number, Path(folder) / "each.json")
            for _ in range(options.repeats)
            for number in (1, 2)
        ]
    result = {
        "command": f"python tools/measure_processes.py --repeats {options.repeats}",
        "hardware": runs[0]["hardware"],
        "others_at_work": load,  # processes that waited for a core before ours began
        "pair": PAIR,
        **SIZES,
        "sent_bytes": SENT,
        "runs": [{k: v for k, v in run.items() if k != "hardware"} for run in runs],
    }
    path = ROOT / "book" / "results" / "processes.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
