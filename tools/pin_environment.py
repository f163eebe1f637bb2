"""Write requirements.txt: every version that `pip freeze` finds in a fresh environment.

Run by `make pins`. torch stays at the version already pinned: its build is chosen by hand.
"""

import re
import subprocess
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements.txt"
OURS = {"logitflow", "pip"}
HEADER = """\
# The whole environment, pinned: what `make pins` makes of the ranges in pyproject.toml.
# torch is pinned exactly: a range may pull a build with gigabytes of CUDA packages.
"""


def pinned_torch() -> str:
    """The line that pins torch in today's requirements.txt."""
    match = re.search(r"^torch==\S+$", PINS.read_text(encoding="utf8"), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{PINS.name} pins no torch: write a line such as torch==2.13.0 first.")
    return match.group()


def frozen_lines(freeze: str) -> list[str]:
    """Sorted `name==version` lines, without our own package and without local version labels."""
    lines = [line.split("+")[0] for line in freeze.splitlines() if "==" in line]
    kept = [line for line in lines if line.split("==")[0].lower() not in OURS]
    return sorted(kept, key=str.lower)


def main() -> None:
    """Install the newest versions that the ranges allow into a new environment and freeze it."""
    torch = pinned_torch()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip"]
        subprocess.run([*pip, "install", torch], check=True)
        wanted = [torch, f"{ROOT}[book,coursework,dev,notebook]"]
        subprocess.run([*pip, "install", *wanted], check=True)
        freeze = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True)
    lines = frozen_lines(freeze.stdout.decode())
    PINS.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf8")
    print(f"{PINS.name}: {len(lines)} packages pinned. `make test` before you commit it.")


if __name__ == "__main__":
    main()
