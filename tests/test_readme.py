"""The README says what the results' file says."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_is_the_results_file():
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "tools/readme_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    readme = (ROOT / "README.md").read_text()
    result = json.loads((ROOT / "book/results/25gaussians.json").read_text())
    assert tool.with_table(readme, result) == readme
    assert "± " in readme
