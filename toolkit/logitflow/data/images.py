"""CIFAR-10 and STL-10 through Hugging Face's `datasets`, from a local folder or from the hub."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from logitflow.progress import progress

VARIABLE = "LOGITFLOW_DATA"
"""The environment variable that names a local folder of data."""

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""CIFAR-10's classes in the order of their labels."""


class Images(NamedTuple):
    """A set of images in memory, as bytes: 50,000 of CIFAR-10 take 154 MB."""

    pixels: Tensor  # (N, 3, H, W), uint8
    labels: Tensor  # (N,), int64; −1 where there is none
    source: str  # where they come from, for the figures computed with them

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n images drawn with replacement, each mirrored or not by a coin: (n, 3, H, W) in [−1, 1]."""
        at = generator.device
        which = torch.randint(len(self.pixels), (n,), generator=generator, device=at)
        mirrored = torch.rand(n, generator=generator, device=at) < 0.5
        x = self.pixels[which.to(self.pixels.device)].to(at)
        return from_bytes(torch.where(mirrored[:, None, None, None], x.flip(3), x))


def from_bytes(pixels: Tensor) -> Tensor:
    """Pixels of uint8 in 0…255 to float32 in [−1, 1], of the same shape."""
    return pixels.float() / 127.5 - 1


def to_bytes(x: Tensor) -> Tensor:
    """Images in [−1, 1] to uint8 in 0…255, of the same shape; what lies outside is clipped."""
    return (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def png_grid(x: Tensor, columns: int = 8) -> bytes:
    """Images in [−1, 1], (N, 3, H, W), side by side without margins, as a PNG file's bytes."""
    n, _, height, width = x.shape
    rows = -(-n // columns)
    sheet = torch.full((rows, columns, 3, height, width), 255, dtype=torch.uint8)
    sheet.view(-1, 3, height, width)[:n] = to_bytes(x.detach().cpu())
    array = sheet.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def cifar10(split: str = "train") -> Images:
    """CIFAR-10's 50,000 training or 10,000 test images of 32×32 pixels.

    Where `LOGITFLOW_DATA` names a folder, reads its `cifar10/{split}.parquet`; else asks the hub.

    Args:
        split: "train" or "test".

    Raises:
        ValueError: another split, or a file that is truncated or no image data set.
        FileNotFoundError: `LOGITFLOW_DATA` names a folder without the file.
        ConnectionError: there is neither the variable nor a network.
    """
    if split not in ("train", "test"):
        raise ValueError(f"CIFAR-10 has the splits 'train' and 'test', not {split!r}")
    return _load("cifar10", f"{split}.parquet", "uoft-cs/cifar10", split, "img", size=32)


def stl10(size: int = 48) -> Images:
    """STL-10's unlabelled images, resized from 96×96 as the papers do (bicubic, antialiased).

    Where `LOGITFLOW_DATA` names a folder, reads its `stl10/sample.parquet`; else asks the hub for all 100,000.

    Args:
        size: height and width to resize to.

    Raises:
        ValueError: a file that is truncated or no image data set.
        FileNotFoundError: `LOGITFLOW_DATA` names a folder without the file.
        ConnectionError: there is neither the variable nor a network.
    """
    return _load("stl10", "sample.parquet", "tanganke/stl10", "unlabeled", "image", size=size)


def _load(folder: str, file: str, hub: str, split: str, column: str, size: int) -> Images:
    rows, source = _rows(f"{folder}/{file}", hub, split)
    if column not in rows.column_names:
        raise ValueError(f"{source} has no column {column!r} of images: is it {folder}?")
    rows = rows.cast_column(column, _datasets().Image(mode="RGB"))
    pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    try:
        for i, picture in enumerate(progress(rows[column], desc=f"read {folder}", unit="image")):
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            pixels[i] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    except OSError as error:  # Pillow's, of a damaged picture
        raise ValueError(f"{source}, image {i}, cannot be read: fetch the file again") from error
    labels = rows["label"][:] if "label" in rows.column_names else [-1] * len(rows)
    return Images(pixels, torch.tensor(labels), source)


def _rows(file: str, hub: str, split: str) -> tuple[Any, str]:
    """The data set's rows and where they come from: a local file where `LOGITFLOW_DATA` is set, or the hub."""
    datasets = _datasets()
    root = os.environ.get(VARIABLE)
    if not root:
        try:
            return datasets.load_dataset(hub, split=split), f"{hub} ({split})"
        except OSError as error:
            raise ConnectionError(
                f"{hub} cannot be fetched here: connect to the network, or set {VARIABLE} to a folder that "
                f"holds {file}"
            ) from error
    path = Path(root) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{VARIABLE}={root} has no {file}: name the folder that has it, or unset the variable to fetch "
            f"{hub} from the hub"
        )
    try:
        # into a cache of its own that goes with it: a file of the same name may have changed since
        with tempfile.TemporaryDirectory() as cache:
            rows = datasets.Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)
    except (ValueError, OSError) as error:  # pyarrow's and datasets' own derive from these
        raise ValueError(f"{path} is truncated or no parquet file: fetch it again") from error
    return rows, file


def _datasets() -> Any:
    import datasets  # slow to import, and needed only here

    return datasets
