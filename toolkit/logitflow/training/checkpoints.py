"""What checkpoints of training share: one safetensors file, and sentences for a file that does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor


def packed(tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint's bytes."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}


@contextmanager
def restoring(path: Path, others: str) -> Iterator[None]:
    """Says in a sentence what is wrong with a checkpoint that does not load.

    Args:
        path: the checkpoint.
        others: whose it is where its tensors do not fit, such as "other networks".

    Raises:
        ValueError: it is damaged, or of `others`.
    """
    try:
        yield
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint: move it away to begin anew"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{path} is a checkpoint of {others}: move it away, or name another file"
        ) from error
