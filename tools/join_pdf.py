"""Join printed chapters into one PDF, whose links lead inside it where they can."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, Fit, FloatObject, NameObject, NullObject

CONTENTS_LINK = "https://contents/"
"""What the links of the table of contents begin with, before the page they name, counted from 1."""


class Chapter(NamedTuple):
    """A printed page of the book: its file, its part, its title, its sections (title, anchor) and its PDF."""

    file: Path
    part: str
    title: str
    sections: list[tuple[str, str]]
    pdf: PdfReader


def path_of(address: str) -> Path:
    """The file that a file address names."""
    return Path(unquote(urlsplit(address).path))


def places(pdf: PdfReader) -> dict[str, tuple[int, float]]:
    """For each anchor that the PDF knows: the page and the height on it."""
    found = {}
    for name, destination in pdf.named_destinations.items():
        number = pdf.get_destination_page_number(destination)
        if number is not None:
            found[unquote(str(name)).lstrip("/")] = (number, float(destination.top or 0))
    return found


def lead(annotation: DictionaryObject, page: PageObject, top: float | None) -> None:
    """Make the link lead to a place in the PDF."""
    where = NullObject() if top is None else FloatObject(top)
    place = [page.indirect_reference, NameObject("/XYZ"), NullObject(), where, NullObject()]
    annotation.pop("/A", None)
    annotation[NameObject("/Dest")] = ArrayObject(place)


def join(chapters: Sequence[Chapter], front: PdfReader, feet: PdfReader) -> PdfWriter:
    """All of it in one PDF, whose links lead inside it where they can."""
    writer = PdfWriter()
    found = [places(chapter.pdf) for chapter in chapters]
    starts = first_pages(chapters, len(front.pages))
    files = {chapter.file: number for number, chapter in enumerate(chapters)}
    for reader in (front, *(chapter.pdf for chapter in chapters)):
        for page in reader.pages:
            writer.add_page(page)
    owners: list[int | None] = [None] * len(front.pages)
    owners += [n for n, chapter in enumerate(chapters) for _ in chapter.pdf.pages]
    for page, foot, owner in zip(writer.pages, feet.pages, owners, strict=True):
        kept = ArrayObject()
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            address = str(link["/A"].get("/URI", "")) if "/A" in link else ""
            anchor = unquote(urlsplit(address).fragment)
            target: int | None = owner
            if address.startswith("file:"):
                target = files.get(path_of(address))
            elif address.startswith(CONTENTS_LINK):
                lead(link, writer.pages[int(address.removeprefix(CONTENTS_LINK)) - 1], None)
                target = None
            elif "/Dest" in link:
                anchor = unquote(str(link["/Dest"]).lstrip("/"))
            else:
                target = None
            if target is not None:
                number, top = found[target].get(anchor, (0, None))
                lead(link, writer.pages[starts[target] + number], top)
            if not (address.startswith("file:") and target is None):  # a file beside the book
                kept.append(reference)
        page[NameObject("/Annots")] = kept
        page.merge_page(foot)
    for chapter, start, known in zip(chapters, starts, found, strict=True):
        parent = writer.add_outline_item(title=chapter.title, page_number=start)
        for title, anchor in chapter.sections:
            number, top = known.get(anchor, (0, None))
            writer.add_outline_item(
                title=title, page_number=start + number, parent=parent, fit=Fit.xyz(top=top)
            )
    return writer


def first_pages(chapters: Sequence[Chapter], before: int) -> list[int]:
    """Where each chapter begins, counted from 0."""
    lengths = [len(chapter.pdf.pages) for chapter in chapters]
    return [before + sum(lengths[:number]) for number in range(len(lengths))]
