"""The book's long tables: every method on a shipped pair, several seeds, one JSON and one picture each."""

from logitflow.reproduce.common import Counted, Row, hardware, summarise
from logitflow.reproduce.images import reproduce_images
from logitflow.reproduce.settings import curve_rows, image_rows
from logitflow.reproduce.toys import measure, reproduce, rows

__all__ = [
    "Counted",
    "Row",
    "curve_rows",
    "hardware",
    "image_rows",
    "measure",
    "reproduce",
    "reproduce_images",
    "rows",
    "summarise",
]
