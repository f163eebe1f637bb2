"""What the assignments share: hints in place of tracebacks, and the one rule about the toolkit.

Students get this file beside their notebooks, and there is no answer in it. The grader brings its own copy.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator
from types import CodeType, EllipsisType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that gives the same ones each time."""
    return torch.Generator().manual_seed(seed)


def is_tensor(value: object, shape: tuple[int, ...], what: str) -> Tensor:
    """Insist on a finite tensor of a shape."""
    assert value is not None, f"{what} returned nothing yet: write it, and end it with `return`."
    assert isinstance(value, Tensor), f"{what} returned {kind(value)} where a tensor is asked for."
    assert tuple(value.shape) == shape, (
        f"{what} returned shape {tuple(value.shape)} where {shape} is asked for."
    )
    assert torch.isfinite(value).all(), f"{what} returned NaN or infinity."
    return value.detach()


def is_number(value: object, what: str) -> float:
    """Insist on a number, which may be infinite."""
    assert value is not None, f"{what} returned nothing yet: write it, and end it with `return`."
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    assert number, f"{what} returned {kind(value)} where a number is asked for."
    assert not math.isnan(float(value)), f"{what} returned NaN."  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def is_tuple(value: object, length: int, what: str) -> tuple[Any, ...]:
    """Insist on so many values."""
    assert value is not None, f"{what} returned nothing yet: write it, and end it with `return`."
    right = isinstance(value, tuple | list) and len(value) == length
    assert right, f"{what} returned {kind(value)} where {length} values are asked for."
    return tuple(value)  # type: ignore[arg-type]


def agrees(value: Any, expected: Any, hint: str, *, rtol: float = 1e-3, atol: float = 1e-5) -> None:
    """Insist on a value up to rounding; the hint says what to look for."""
    assert not isinstance(value, EllipsisType | None), f"Nothing was returned yet. {hint}"
    a, b = (torch.as_tensor(v).detach().double() for v in (value, expected))
    assert torch.allclose(a, b, rtol=rtol, atol=atol), (
        f"{hint} You gave {shown(a)}, and it should be {shown(b)}."
    )


def within(value: Any, expected: float, tolerance: float, hint: str) -> None:
    """Insist on a random number that is near what it should be."""
    assert not isinstance(value, EllipsisType | None), f"Nothing was returned yet. {hint}"
    assert abs(float(value) - expected) <= tolerance, (
        f"{hint} Yours is {float(value):.4g}; it should be {expected:.4g}, give or take {tolerance:.2g}."
    )


def by_yourself(*functions: Callable[..., Any] | None) -> None:
    """Refuse functions that lean on the toolkit: the assignment asks for what the toolkit would do."""
    for function in functions:
        assert callable(function), "The function is missing: run its cell, and keep its name."
        borrowed = sorted(set(from_toolkit(function)))
        assert not borrowed, (
            f"{getattr(function, '__name__', 'This')} uses {', '.join(borrowed)} from logitflow. "
            "Compare with the toolkit as much as you like, but write the answer itself in PyTorch."
        )


def from_toolkit(function: Any, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """The names of the toolkit that a function reaches, through the notebook's other functions too."""
    function = function.func if isinstance(function, functools.partial) else function
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    names = set(names_in(function.__code__))
    reached = {name: function.__globals__.get(name) for name in names}
    reached |= {
        f"value {i}": cell.cell_contents for i, cell in enumerate(function.__closure__ or ())
    }
    for name, value in reached.items():
        if name.startswith("logitflow") or home(value).startswith("logitflow"):
            yield name
        elif home(value) == home(function):
            yield from from_toolkit(value, seen | {id(function)})


def names_in(code: CodeType) -> Iterator[str]:
    """All global names and attributes that a piece of code mentions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def home(value: object) -> str:
    """The module that a module, a function, a class or an instance comes from."""
    if isinstance(value, ModuleType):
        return value.__name__
    return getattr(value, "__module__", None) or type(value).__module__


def kind(value: object) -> str:
    """What a value is, in words."""
    return "`...`" if value is ... else f"a {type(value).__name__}"


def shown(values: Tensor) -> str:
    """The first few numbers of a tensor."""
    flat = [f"{v:.4g}" for v in values.flatten().tolist()]
    return ", ".join(flat[:4]) + (", …" if len(flat) > 4 else "")


@contextlib.contextmanager
def waits_for(*questions: str) -> Iterator[None]:
    """Do what follows, or say which answers it waits for."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    try:
        yield
        if pyplot is not None:
            pyplot.show()
    except Exception as error:
        if pyplot is not None:
            pyplot.close("all")
        print(f"This waits for your answer to {' and '.join(questions)}.")
        print(f"So far it ends in: {type(error).__name__}: {error}")
