"""A chapter's MyST Markdown as the plain Markdown that Jupyter and Colab show: no directives, no roles."""

import re
from collections.abc import Callable

Name = Callable[[str, str], str]
"""What a role shows: name("eq", "eq:ch3-energy") is "(3.1)"; "number" is a result's heading: "Theorem 3.1"."""

Link = Callable[[str], str | None]
"""A link's target in the notebook, from its target in the chapter; None leaves the words only."""

OPENING = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<argument>.*)$")
CODE = re.compile(r"^ *(?P<fence>`{3,}|~{3,})")
LABEL = re.compile(r"^\([\w:-]+\)=$")
# formulas and code are found too, so that nothing in them is taken for a role or a link
INLINE = re.compile(
    r"\{(?P<role>[\w:]+)\}`(?P<said>[^`]+)`"
    r"|(?P<kept>\$\$.*?\$\$|(?<!\\)\$[^$]+\$|``.+?``|`[^`]+`)"
    r"|(?<!!)\[(?P<words>[^\[\]]*)\]\((?P<target>[^()\s]+)\)",
    re.DOTALL,
)
NOTES = {
    *("note", "tip", "hint", "important", "warning", "caution", "attention", "danger", "seealso"),
    *("admonition", "dropdown", "margin", "sidebar"),
}


def plain(text: str, name: Name, link: Link) -> str:
    """The text of a Markdown cell without MyST's own syntax.

    Args:
        text: Markdown with directives and roles.
        name: what a role shows, from its name and its target.
        link: where a link leads in the notebook.

    Raises:
        ValueError: a directive or a role that a notebook has no way to show.
    """
    lines = text.split("\n")
    prose: list[str] = []
    out: list[str] = []

    def flush() -> None:
        if prose:
            out.append(inline("\n".join(prose), name, link))
        prose.clear()

    while lines:
        line = lines.pop(0)
        if opening := OPENING.match(line):
            flush()
            body = take(lines, opening["fence"])
            out += directive(opening["name"], opening["argument"].strip(), body, name, link)
        elif code := CODE.match(line):
            flush()
            out += [line, *take(lines, code["fence"]), code["fence"]]
        elif not LABEL.match(line) and not line.startswith("% "):
            prose.append(line)
    flush()
    return "\n".join(out)


def take(lines: list[str], fence: str) -> list[str]:
    """Remove and return the lines up to the closing fence, which is removed too."""
    body: list[str] = []
    while lines:
        line = lines.pop(0)
        if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            return body
        body.append(line)
    raise ValueError(f"a fence {fence} is never closed: {body[:3]}")


def options(body: list[str]) -> tuple[dict[str, str], list[str]]:
    """The `:key: value` lines that a directive begins with, and the rest."""
    found = {}
    while body and (option := re.match(r"^:([\w-]+):\s*(.*)$", body[0])):
        found[option[1]] = option[2]
        body = body[1:]
    return found, body


def directive(kind: str, argument: str, body: list[str], name: Name, link: Link) -> list[str]:
    """What stands in the notebook in a directive's place."""
    told, body = options(body)
    inside = plain("\n".join(body), name, link).strip("\n").split("\n")
    if kind == "math":
        return ["", "$$", *display("\n".join(body).strip("\n")), *tag(told, name), "$$", ""]
    if kind == "prf:proof":
        return ["", "*Proof.*", *inside, ""]
    if kind.startswith("prf:") or kind == "exercise":
        heading = name("number", told["label"]) if "label" in told else kind.removeprefix("prf:")
        title = f" ({inline(argument, name, link)})" if argument else ""
        return ["", f"**{heading}{title}.**", *inside, ""]
    if kind == "solution":
        summary = f"<summary>Solution to {name('number', argument)}</summary>"
        return ["", "<details>", summary, "", *inside, "", "</details>", ""]
    if kind == "solution-start":
        return ["", f"**Solution to {name('number', argument)}.**", ""]
    if kind in ("solution-end", "exercise-start", "exercise-end"):
        return [""]
    if kind in ("figure", "image"):
        return ["", f"![{told.get('alt', '')}]({argument})", "", *inside, ""]
    if kind in NOTES:
        title = argument or kind.capitalize()
        return ["", *(f"> {line}".rstrip() for line in [f"**{title}**", "", *inside]), ""]
    raise ValueError(f"no notebook can show the directive {kind}: say in book/_ext/plain.py how")


def display(formula: str) -> list[str]:
    """The formula, its lines aligned if it has several, as Sphinx does."""
    if r"\\" in formula and r"\begin{" not in formula:
        return [r"\begin{split}", formula, r"\end{split}"]
    return [formula]


def tag(told: dict[str, str], name: Name) -> list[str]:
    """An equation's number, as on the page."""
    return [rf"\tag{{{name('eq', told['label']).strip('()')}}}"] if "label" in told else []


def inline(text: str, name: Name, link: Link) -> str:
    """Prose with roles replaced by what they show, and links led to where the notebook's readers are."""

    def show(found: re.Match[str]) -> str:
        if found["kept"]:
            return found["kept"]
        if found["role"]:
            titled = re.match(r"^(.*\S)\s*<[^<>]+>$", found["said"], re.DOTALL)
            return titled[1] if titled else name(found["role"], " ".join(found["said"].split()))
        target = link(found["target"])
        return f"[{found['words']}]({target})" if target else found["words"]

    return INLINE.sub(show, text)
