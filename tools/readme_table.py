"""Write the README's table of results from the file that `logitflow reproduce 25gaussians` wrote.

python tools/readme_table.py; a test checks that the README says what the file says.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- results:begin.*?-->\n).*?(<!-- results:end -->)", re.DOTALL)


def table(result: dict[str, Any]) -> str:
    """The results as a Markdown table, with the command and the hardware that made them."""

    def cell(row: dict[str, Any], metric: str, factor: float, digits: int) -> str:
        value = row["metrics"][metric]
        mean, error = factor * value["mean"], factor * value["standard_error"]
        return f"{mean:.{digits}f} ± {error:.{digits}f}"

    lines = [
        "| method | logit | space | high quality % | modes | energy distance ÷ floor | gradients |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        cells = [
            row["method"],
            row["logit"],
            row["space"],
            cell(row, "high_quality", 100, 1),
            cell(row, "modes", 1, 1),
            cell(row, "energy_ratio", 1, 2),
            f"{row['metrics']['gradient_evaluations']['mean']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    made = (
        f"25 Gaussians, {result['num_samples']:,} samples a row, mean ± standard error over "
        f"{len(result['seeds'])} seeds; made by `{result['command']}` on {result['hardware']}. "
        "Chapter 8 says what the columns mean, and what they hide."
    )
    return "\n".join([*lines, "", made, ""])


def with_table(readme: str, result: dict[str, Any]) -> str:
    """The README's text with the table between its marks."""
    return MARKED.sub(lambda match: match[1] + table(result) + match[2], readme)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    result = json.loads((ROOT / "book/results/25gaussians.json").read_text())
    readme.write_text(with_table(readme.read_text(), result))
