"""The book's long tables: every method on a shipped pair, several seeds, one JSON and one picture each."""

from logitflow.reproduce.common import Counted, Row, hardware, summarise
from logitflow.reproduce.toys import measure, reproduce, rows

__all__ = ["Counted", "Row", "hardware", "measure", "reproduce", "rows", "summarise"]
