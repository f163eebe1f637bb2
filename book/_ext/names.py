"""What a chapter's references show on its page: numbers, titles, authors and years."""

from collections.abc import Sequence

from docutils import nodes
from repository import notebook_of
from sphinx.application import Sphinx


class Names:
    """The names that one page's roles and links stand for.

    Args:
        app: Sphinx, when it has numbered everything.
        page: the page.
        chapters: the pages that become notebooks.
    """

    def __init__(self, app: Sphinx, page: str, chapters: Sequence[str]) -> None:
        self.env = app.env
        self.notebooks = {chapter.rpartition("/")[2]: notebook_of(chapter) for chapter in chapters}
        self.numbers = {
            label: (kind, ".".join(map(str, number)))
            for kinds in app.env.toc_fignumbers.values()
            for kind, labels in kinds.items()
            for label, number in labels.items()
        }

    def shown(self, role: str, target: str) -> str:
        """What a role shows.

        Args:
            role: the role's name, or "number" for the heading of a result or an exercise.
            target: what it points to.

        Raises:
            ValueError: there is no such role or target.
        """
        if role == "math":
            return f"${target}$"
        if role == "eq":
            return f"({self.number('equation-' + nodes.make_id(target))[1]})"
        if role.startswith("cite"):
            return self.citation(role, target.split(","))
        if role.startswith("py:"):
            return f"`{target.rpartition('.')[2] if target.startswith('~') else target}`"
        if role == "doc":
            return self.env.titles[f"book/{target}"].astext()
        if role in ("ref", "prf:ref", "numref", "number"):
            if target in self.numbers:
                kind, number = self.number(target)
                return f"{kind.capitalize()} {number}"
            return self.title(target)
        raise ValueError(f"no notebook can show the role {role}: say in book/_ext/names.py how")

    def number(self, label: str) -> tuple[str, str]:
        """The kind and the number of a labelled thing."""
        if label not in self.numbers:
            raise ValueError(f"nothing is labelled {label}")
        return self.numbers[label]

    def title(self, label: str) -> str:
        """The title of a labelled section, or the kind of a result that has no number."""
        results = getattr(self.env, "proof_list", {})
        if label in results:
            return results[label]["realtype"].capitalize()
        labels = self.env.get_domain("std").labels  # type: ignore[attr-defined]
        if label not in labels:
            raise ValueError(f"nothing is labelled {label}")
        return labels[label][2]

    def citation(self, role: str, keys: Sequence[str]) -> str:
        """Authors and years, as in running text for cite:t, else in brackets."""
        citations = self.env.get_domain("cite").citations  # type: ignore[attr-defined]
        entries = {citation.key: citation.entry for citation in citations}
        told = []
        for key in map(str.strip, keys):
            if key not in entries:
                raise ValueError(f"the bibliography has no {key}")
            names = [
                " ".join(str(part) for part in person.rich_prelast_names + person.rich_last_names)
                for person in entries[key].persons["author"]
            ]
            authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
            told.append((authors, entries[key].fields["year"]))
        if role == "cite:t":
            return ", ".join(f"{authors} [{year}]" for authors, year in told)
        return f"[{'; '.join(f'{authors}, {year}' for authors, year in told)}]"

    def link(self, target: str) -> str | None:
        """Where a chapter's link leads in its notebook: another notebook, the web, or nowhere."""
        file = target.partition("#")[0]
        if target.startswith(("https:", "http:")):
            return target
        return self.notebooks.get(file.removesuffix(".md")) if file.endswith(".md") else None
