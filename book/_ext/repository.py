"""Where the book is kept, and the buttons that lead there: edit, issue, Colab, Binder.

The address stands in one place, `repository: url` in _config.yml; the environment variable BOOK_REPOSITORY goes
before it (the publishing workflow sets it). Where neither is set, no page shows a link that would be dead.
BOOK_VERSION says which version of the book is being published: a release's tag, or "latest".
"""

import os
import subprocess
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

GITHUB = "https://github.com/"
BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")


def show_where_it_is_kept(app: Sphinx, config: Config) -> None:
    """Turn the edit and issue buttons on where the repository is known."""
    theme = config.html_theme_options
    theme["repository_url"] = address(config)
    theme.update(dict.fromkeys(BUTTONS, bool(theme["repository_url"])))


def address(config: Config) -> str:
    """The repository's address, "" where it is not known."""
    told = os.environ.get("BOOK_REPOSITORY") or config.html_theme_options.get("repository_url")
    return (told or "").strip().rstrip("/").removesuffix(".git")


def branch() -> str:
    """The branch that holds the chapters of this version as notebooks; the publishing workflow pushes it."""
    return f"notebooks-{os.environ.get('BOOK_VERSION') or 'latest'}"


def revision(folder: str) -> str:
    """The commit that is being built, "main" where that cannot be told."""
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "main"


def is_chapter(app: Sphinx, page: str) -> bool:
    """Whether the page is one that runs."""
    return "kernelspec" in app.env.metadata.get(page, {})


def notebook_of(page: str) -> str:
    """The file name of a chapter's notebook."""
    return page.rpartition("/")[2] + ".ipynb"


def launches(repository: str, notebook: str) -> list[dict[str, str]]:
    """The buttons that open a notebook elsewhere. Both services read it from the branch of notebooks."""
    owner_and_name = repository.removeprefix(GITHUB)
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch()}/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/{branch()}?urlpath=lab/tree/{notebook}"
    return [
        {
            "type": "link",
            "text": name,
            "tooltip": f"Run this chapter on {name}",
            "icon": f"_static/images/{logo}",
            "url": url,
        }
        for name, logo, url in (
            ("Colab", "logo_colab.png", colab),
            ("Binder", "logo_binder.svg", binder),
        )
    ]


def add_buttons(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give every chapter its notebook to download and, where the repository is known, to launch."""
    buttons = context.get("header_buttons", [])
    if not is_chapter(app, page):
        return
    notebook = notebook_of(page)
    [downloads] = [group for group in buttons if group["label"] == "download-buttons"]
    downloads["buttons"].insert(
        0,
        {
            "type": "link",
            "url": context["pathto"](f"notebooks/{notebook}", 1),
            "text": ".ipynb",
            "icon": "fas fa-code",
            "tooltip": "Download this chapter as a notebook",
            "label": "download-notebook-button",
        },
    )
    repository = address(app.config)
    if repository.startswith(GITHUB):
        group = {
            "type": "group",
            "tooltip": "Run this chapter",
            "icon": "fas fa-rocket",
            "buttons": launches(repository, notebook),
            "label": "launch-buttons",
        }
        buttons.insert(0, group)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions above to the events they serve."""
    app.connect("config-inited", show_where_it_is_kept)
    app.connect("html-page-context", add_buttons, priority=900)  # after the theme's own
    return {"parallel_read_safe": True, "parallel_write_safe": True}
