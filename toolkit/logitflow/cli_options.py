"""What the command line's parsers share."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logitflow.device import DEVICES


def add_command(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], None] | None,
    about: str,
    example: str,
) -> argparse.ArgumentParser:
    """A command's parser, with its example below; `run` gets the parsed options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"Example: {example}",
        formatter_class=_Help,
    )
    if run is not None:
        parser.set_defaults(command=run)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells each option's default, where it is more than its absence."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def count(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option that chooses where to compute."""
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="auto: a CUDA GPU where there is one"
    )


def add_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """The option that says where to write what was made."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"folder for {what}; a killed run goes on from there",
    )
