"""Put a built version of the book into the published site: a folder for each release, and one named latest.

python tools/place_version.py SITE PAGES VERSION

SITE is the built book, PAGES the folder that is published, VERSION a release's tag (v0.1.0) or "latest", which
follows the main branch. The first page of all leads to the newest release, or to latest while there is none.
"""

import argparse
import re
import shutil
from pathlib import Path

LATEST = "latest"
RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)$")
FIRST_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Refresh" content="0; url={newest}/index.html">
<title>The Critic Knows</title>
<h1>The Critic Knows</h1>
<ul>
{versions}
</ul>
</html>
"""


def versions(pages: Path) -> list[str]:
    """The versions that are published: releases, the newest first, then latest."""
    names = [path.name for path in pages.iterdir() if path.is_dir()]
    numbers = {
        name: tuple(map(int, found.groups())) for name in names if (found := RELEASE.match(name))
    }
    releases = sorted(numbers, key=lambda name: numbers[name], reverse=True)
    return releases + [LATEST] * (LATEST in names)


def place(site: Path, pages: Path, version: str) -> None:
    """Publish the built book as this version, and leave the others as they are.

    Raises:
        ValueError: the version is neither a release's tag nor "latest", or the site holds no book.
    """
    if version != LATEST and not RELEASE.match(version):
        raise ValueError(f"a version is a tag such as v0.1.0, or {LATEST}: not {version!r}")
    if not (site / "index.html").is_file():
        raise ValueError(f"{site} holds no built book: run `make book` first")
    pages.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(pages / version, ignore_errors=True)
    shutil.copytree(site, pages / version)
    (pages / ".nojekyll").touch()  # or folders that begin with _ would not be published
    known = versions(pages)
    lines = "\n".join(f'<li><a href="{name}/index.html">{name}</a></li>' for name in known)
    (pages / "index.html").write_text(FIRST_PAGE.format(newest=known[0], versions=lines))


def main() -> None:
    """Place the version that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", type=Path)
    parser.add_argument("version")
    options = parser.parse_args()
    place(options.site, options.pages, options.version)


if __name__ == "__main__":
    main()
