"""The book's long tables: every method on a shipped pair, several seeds, one JSON and one picture each."""

from logitflow.reproduce.beyond import (
    Identity,
    beyond_rows,
    check_identity,
    logits_of,
    reproduce_beyond,
)
from logitflow.reproduce.beyond_images import (
    beyond_image_rows,
    open_model_lab,
    reproduce_beyond_images,
)
from logitflow.reproduce.common import Counted, Row, hardware, summarise
from logitflow.reproduce.images import reproduce_images
from logitflow.reproduce.settings import curve_rows, image_rows, text_curve_rows, text_rows
from logitflow.reproduce.text import reproduce_text, text_logits
from logitflow.reproduce.toys import measure, reproduce, rows

__all__ = [
    "Counted",
    "Identity",
    "Row",
    "beyond_image_rows",
    "beyond_rows",
    "check_identity",
    "curve_rows",
    "hardware",
    "image_rows",
    "logits_of",
    "measure",
    "open_model_lab",
    "reproduce",
    "reproduce_beyond",
    "reproduce_beyond_images",
    "reproduce_images",
    "reproduce_text",
    "rows",
    "summarise",
    "text_curve_rows",
    "text_logits",
    "text_rows",
]
