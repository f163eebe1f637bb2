"""Measure what a step of the live page costs: 2,000 samples of the shipped pair, method by method.

python tools/measure_live.py

Node runs the page's own program on one thread, and the processor's milliseconds are counted: on a machine
that others use too, the clock's mean little. Those of compiling and collecting garbage are among them.
The page shares the samples out among as many workers as there are processors, eight at most, and draws at
most 60 times a second: from the milliseconds follows what a number of workers allows.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from logitflow import live, zoo

METHODS = {"ula": 1e-4, "mala": 1e-4, "dgflow": 1e-4, "dot": 1e-2, "mh": 0.0}
NUM_SAMPLES, WARM, MEASURED = 2000, 20, 60
WORKERS = (1, 2, 4, 8)
PROGRAM = """
import { readFileSync } from "node:fs";
import { refinement, randomness, uniform } from "./live.mjs";
const { pair, methods, count, warm, measured } = JSON.parse(readFileSync(0));
const told = {};
for (const [method, stepSize] of Object.entries(methods)) {
  const scene = refinement(pair), times = [];
  const z = uniform(randomness(0), 2 * count).map((u) => pair.low + (pair.high - pair.low) * u);
  scene.begin({ z, first: z.slice(0, 2048), seed: 1 });
  for (let k = 0; k < warm + measured; k++) {
    const before = process.cpuUsage();
    scene.step({ method, stepSize, gamma: 0.1, divergence: "js" });
    scene.tell();
    const { user, system } = process.cpuUsage(before);
    if (k >= warm) times.push((user + system) / 1000);
  }
  told[method] = times.sort((a, b) => a - b);
}
console.log(JSON.stringify(told));
"""


def measure() -> dict[str, list[float]]:
    """Milliseconds of processor time of each method's steps, in order of size."""
    if shutil.which("node") is None:
        sys.exit("node is needed to run the page's program by itself: nodejs.org")
    work = {
        "pair": live.export(zoo.load(live.PAIR)),
        "methods": METHODS,
        "count": NUM_SAMPLES,
        "warm": WARM,
        "measured": MEASURED,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "live.mjs").write_text(live.source("refinementView"), encoding="utf-8")
        (Path(folder) / "measure.mjs").write_text(PROGRAM, encoding="utf-8")
        ran = subprocess.run(
            ["node", str(Path(folder) / "measure.mjs")],
            input=json.dumps(work),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(ran.stdout)


def main() -> None:
    """Print a line a method."""
    frames = "".join(f"{workers:>5}" for workers in WORKERS)
    print(f"{NUM_SAMPLES:,} samples; {os.cpu_count()} processors here")
    print(f"{'':8}{'ms a step (least–most of the middle half)':>42}   frames a second, workers:")
    print(f"{'':53}{frames}")
    for method, times in measure().items():
        low, middle, high = (times[int(share * len(times))] for share in (0.25, 0.5, 0.75))
        rates = "".join(f"{min(60, 1000 * workers / middle):5.0f}" for workers in WORKERS)
        print(f"{method:8}{f'{middle:.0f} ({low:.0f}–{high:.0f})':>42}   {rates}")


if __name__ == "__main__":
    main()
