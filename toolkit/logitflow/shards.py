"""The folder of a resumable run: its settings in run.json, each finished batch in one shard."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from logitflow.files import write_atomically
from logitflow.samplers.core import Info, Samples


def open_folder(folder: Path, settings: dict[str, Any], probe: list[float]) -> None:
    """Begin or continue a run in a folder.

    Args:
        folder: made if it is not there.
        settings: what must agree for the shards to be of the same run.
        probe: a few of the target's logits, which must agree to rounding.

    Raises:
        ValueError: the folder holds a run with other settings or another target, or its run.json is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    if not path.exists():
        write_atomically(path, json.dumps({**settings, "probe": probe}, indent=1).encode())
        return
    try:
        found = json.loads(path.read_text())
        old_probe = np.asarray(found.pop("probe"), dtype=float)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged or of another program: name an empty folder, or empty this one"
        ) from error
    same_target = old_probe.shape == (len(probe),) and np.allclose(
        old_probe, probe, rtol=1e-3, atol=1e-3, equal_nan=True
    )
    changed = [name for name in settings if found.get(name) != settings[name]]
    if changed or not same_target:
        what = ", ".join(changed) or "generator, logit or starting points"
        raise ValueError(
            f"{folder} holds a run with another {what}: continue it with the settings in its run.json, "
            "or name an empty folder"
        )


def write(path: Path, samples: Samples) -> None:
    """Write a batch's samples as one safetensors file, whole or not at all."""
    fields = {"x": samples.x, "z": samples.z, **samples.info._asdict()}
    # clone: in data space x is z, and safetensors refuses tensors that share memory
    write_atomically(
        path, save({name: field.contiguous().clone() for name, field in fields.items()})
    )


def read(path: Path) -> Samples | None:
    """Read a shard; None, with a warning where it is damaged, if it must be made again."""
    if not path.exists():
        return None
    try:
        fields = load(path.read_bytes())
        return Samples(fields["x"], fields["z"], Info(*(fields[name] for name in Info._fields)))
    except (SafetensorError, KeyError):
        warnings.warn(f"{path} is damaged and is made again", stacklevel=3)
        return None
