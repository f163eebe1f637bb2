"""What the top level promises: the README's code runs, and the pins, the versions and the citation agree."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import torch
import yaml

import logitflow

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [
    line
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if not line.startswith("#")
]


def test_readme_code_runs(capsys):
    """The README's ten lines refine a generator that they have never seen."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 10
    with torch.random.fork_rng():
        networks = {
            "my_generator": torch.nn.Linear(128, 2),
            "my_discriminator": torch.nn.Linear(2, 1),
        }
    exec(code, networks)
    assert "torch.Size([10000, 2])" in capsys.readouterr().out


def test_pins_are_exact_and_cover_the_dependencies():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in PINS)
    pinned = {plain(pin) for pin in PINS}
    # what `fid` asks for needs torchvision, which has no build beside the pinned torch
    extras = [names for extra, names in PROJECT["optional-dependencies"].items() if extra != "fid"]
    wanted = [*PROJECT["dependencies"], *chain(*extras)]
    assert {plain(name) for name in wanted} <= pinned


def plain(requirement: str) -> str:
    """The normalised name of a requirement: "Sphinx_Proof>=1" is sphinx-proof."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == logitflow.__version__ == citation["version"]
    assert f"## {logitflow.__version__}" in (ROOT / "CHANGELOG.md").read_text()
