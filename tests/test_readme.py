"""The README says what the results' file says, and its ten lines run."""

import importlib.util
import json
import re
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def test_the_table_is_the_results_file():
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "tools/readme_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / "book/results/25gaussians.json").read_text())
    assert tool.with_table(readme, result) == readme
    assert "± " in readme


def test_the_ten_lines_run(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    generator = torch.nn.Linear(128, 3)
    discriminator = torch.nn.Linear(3, 1)
    exec(code, {"my_generator": generator, "my_discriminator": discriminator})
    assert "torch.Size([10000, 3])" in capsys.readouterr().out
