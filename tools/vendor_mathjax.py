"""Put MathJax beside the book's pages, from its npm package. Run by `make book`.

Pages then load nothing from another host, and their equations show offline. Where npm is missing or
cannot reach its registry, nothing is written and the pages use MathJax's usual CDN.
"""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "mathjax@3.2.2"
TARGET = Path(__file__).resolve().parent.parent / "book" / "_static" / "vendor" / "mathjax"
# the one bundle the pages load, what it loads by itself, and the licence
KEPT = (
    "LICENSE",
    "es5/tex-mml-chtml.js",
    "es5/input/tex/extensions/",
    "es5/output/chtml/fonts/woff-v2/",
)


def fetch(folder: Path) -> Path | None:
    """Download the package into `folder` with npm; None where that cannot be done."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"), None) if done.returncode == 0 else None


def unpack(archive: Path, folder: Path) -> None:
    """Extract the kept files to `folder`, without the package's own outer folders.

    By hand, since the safe filter of `TarFile.extract` came with Python 3.11.4: contents only, inside `folder`.
    """
    with tarfile.open(archive) as package:
        for member in package:
            name = member.name.removeprefix("package/")
            file = package.extractfile(member) if member.isfile() else None
            if file is None or not name.startswith(KEPT) or ".." in Path(name).parts:
                continue
            path = folder / name.removeprefix("es5/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


def main() -> None:
    """Vendor MathJax whole or not at all."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = fetch(Path(temporary))
        if archive is None:
            print(f"npm could not fetch {PACKAGE}: the pages will load MathJax from its CDN.")
            return
        unpacked = Path(temporary) / "mathjax"
        unpack(archive, unpacked)
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(unpacked, TARGET)
    print(f"{PACKAGE} is in book/_static/vendor: the pages ask no other host.")


if __name__ == "__main__":
    main()
