"""Measure what a step of the live page costs: 2,000 samples of the shipped pair, method by method.

python tools/measure_live.py

Node runs the page's own program on one thread, and the processor's milliseconds are counted: on a machine
that others use too, the clock's mean little. Those of compiling and collecting garbage are among them.
The page shares the samples out among as many workers as there are processors, eight at most, and draws at
most 60 times a second: from the milliseconds follows what a number of workers allows. Then Chromium, where
there is one, shows the page, and its frames are counted, with all that drawing costs on this machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

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

COUNT = """
async () => {
  const { dataset } = document.querySelector(".live"), start = performance.now(), before = Number(dataset.step);
  await new Promise((done) => setTimeout(done, 3000));
  return (1000 * (Number(dataset.step) - before)) / (performance.now() - start);
}
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


def frames(chromium: str) -> Iterator[tuple[str, float]]:
    """Each method's frames a second on the page itself, in a headless Chromium."""
    start = {"steps": 400, "logStepSize": -4.0}
    settings = {"start": start, "pair": live.export(zoo.load(live.PAIR)), "count": NUM_SAMPLES}
    step = "Number(document.querySelector('.live').dataset.step)"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shown = Path(folder) / "live.html"
        content = live.page("refinementView", settings, Figure(), "a still picture")
        shown.write_text(f"<!doctype html><html lang=en>{content}", encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(shown.as_uri())
        page.get_by_label("Method").select_option("mh")  # so that each choice below is another
        for method in METHODS:
            page.get_by_label("Method").select_option(method)  # it begins anew
            page.wait_for_function(f"{step} < {WARM}")
            page.wait_for_function(f"{step} >= {WARM}")
            yield method, page.evaluate(COUNT)
        browser.close()


def main() -> None:
    """Print a line a method."""
    columns = "".join(f"{workers:>5}" for workers in WORKERS)
    print(f"{NUM_SAMPLES:,} samples; {os.cpu_count()} processors here")
    print(f"{'':8}{'ms a step (least–most of the middle half)':>42}   frames a second, workers:")
    print(f"{'':53}{columns}")
    for method, times in measure().items():
        low, middle, high = (times[int(share * len(times))] for share in (0.25, 0.5, 0.75))
        rates = "".join(f"{min(60, 1000 * workers / middle):5.0f}" for workers in WORKERS)
        print(f"{method:8}{f'{middle:.0f} ({low:.0f}–{high:.0f})':>42}   {rates}")
    if chromium := shutil.which("chromium") or shutil.which("google-chrome"):
        print("frames a second of the page in Chromium, headless, on this machine:")
        for method, rate in frames(chromium):
            print(f"{method:8}{rate:5.0f}")


if __name__ == "__main__":
    main()
