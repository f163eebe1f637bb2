"""CIFAR-10 and STL-10 through Hugging Face's `datasets`, from a local folder or from the hub."""

import io
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from logitflow.data.source import fetch, local
from logitflow.progress import progress

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
        return self.sample_labelled(n, generator)[0]

    def sample_labelled(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same n images as `sample`, with their labels (n,)."""
        at = generator.device
        which = torch.randint(len(self.pixels), (n,), generator=generator, device=at)
        mirrored = torch.rand(n, generator=generator, device=at) < 0.5
        here = which.to(self.pixels.device)
        x = self.pixels[here].to(at)
        x = from_bytes(torch.where(mirrored[:, None, None, None], x.flip(3), x))
        return x, self.labels[here].to(at)


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

    Where `LOGITFLOW_DATA` names a folder, reads its `cifar10/{split}.parquet`; else asks the hub for
    uoft-cs/cifar10. The source is "CIFAR-10", or "CIFAR-10 (JPEG)" where the images were compressed with loss.

    Args:
        split: "train" or "test".

    Raises:
        ValueError: another split, or a file that is truncated, damaged or of something else.
        FileNotFoundError: `LOGITFLOW_DATA` names a folder without the file.
        ConnectionError: there is neither the variable nor a network.
    """
    if split not in ("train", "test"):
        raise ValueError(f"CIFAR-10 has the splits 'train' and 'test', not {split!r}")
    rows, path = _rows(f"cifar10/{split}.parquet", "uoft-cs/cifar10", split)
    images = _decode(rows, path, "img", "CIFAR-10", size=32)
    if images.labels.min() < 0 or images.labels.max() > 9:
        raise ValueError(f"{path} has no labels from 0 to 9: is it CIFAR-10?")
    return images


def stl10(size: int = 48) -> Images:
    """STL-10's unlabelled images, resized from 96×96 as the papers do (bicubic, antialiased).

    Where `LOGITFLOW_DATA` names a folder, reads its `stl10/sample.parquet`; else asks the hub for the 100,000
    of jxie/stl10.

    Args:
        size: height and width to resize to.

    Raises:
        ValueError: a file that is truncated, damaged or of something else.
        FileNotFoundError: `LOGITFLOW_DATA` names a folder without the file.
        ConnectionError: there is neither the variable nor a network.
    """
    rows, path = _rows("stl10/sample.parquet", "jxie/stl10", "unlabeled")
    return _decode(rows, path, "image", "STL-10", size)


def _decode(rows: Any, path: str, column: str, name: str, size: int) -> Images:
    """Rows of compressed images to pixels; `path` is where they come from, for what goes wrong."""
    import datasets

    if not len(rows) or column not in rows.column_names:
        raise ValueError(f"{path} has no column {column!r} of images: is it {name}?")
    try:
        compressed = rows.select_columns(column).cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:  # pyarrow's derive from these
        raise ValueError(f"{path} holds no images in its column {column!r}") from error
    decode = datasets.Image(mode="RGB").decode_example
    # A third faster by batches than row by row.
    values = (value for batch in compressed.iter(1000) for value in batch[column])
    pixels = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    jpeg = False
    for i, value in enumerate(progress(values, total=len(rows), desc=f"read {name}")):
        try:
            picture = decode(value)
        except (OSError, SyntaxError, TypeError, ValueError) as error:  # of a damaged picture
            raise ValueError(f"{path}: image {i} cannot be read: fetch the file again") from error
        jpeg = jpeg or picture.format == "JPEG"
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        pixels[i] = picture
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    labels = rows["label"][:] if "label" in rows.column_names else [-1] * len(rows)
    try:
        return Images(channels_first, torch.tensor(labels), f"{name} (JPEG)" if jpeg else name)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} has labels that are no whole numbers: is it {name}?") from error


def _rows(file: str, hub: str, split: str) -> tuple[Any, str]:
    """The data set's rows and where they come from: a local file where `LOGITFLOW_DATA` is set, or the hub."""
    import datasets  # slow to import, and needed only here; pyarrow comes with it
    from pyarrow import parquet  # type: ignore[import-untyped]

    path = local(file, hub)
    if path is None:
        return fetch(hub, split, file), f"{hub} ({split})"
    try:
        return datasets.Dataset(parquet.read_table(path)), str(path)
    except (ValueError, OSError) as error:  # pyarrow's own derive from these
        raise ValueError(f"{path} is truncated or no parquet file: fetch it again") from error
