"""Image data sets: bytes and back, fair draws, and files that are there, missing, or something else."""

import io
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from laws import seeded
from PIL import Image

from logitflow.data import CIFAR10_CLASSES, Images, cifar10, stl10
from logitflow.data.images import from_bytes, png_grid, to_bytes
from logitflow.data.source import VARIABLE

datasets = pytest.importorskip("datasets")
DATA = os.environ.get(VARIABLE)
with_data = pytest.mark.skipif(not DATA, reason=f"{VARIABLE} names no folder of data")


def compressed(picture, kind="png"):
    file = io.BytesIO()
    picture.save(file, kind)
    return {"bytes": file.getvalue(), "path": None}


def pictures(n=6, size=32, mode="RGB"):
    shape = (n, size, size) if mode == "L" else (n, size, size, 3)
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())
    return [Image.fromarray(value.numpy()) for value in values]


def write(root, file, **columns):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns).to_parquet(str(path))
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder that the loaders read."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", None)  # nothing may ask the hub
    datasets.disable_progress_bars()  # while a test writes its files
    yield tmp_path
    datasets.enable_progress_bars()


# Bytes and back, draws, pictures


def test_every_byte_comes_back():
    every = torch.arange(256, dtype=torch.uint8)
    x = from_bytes(every)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(to_bytes(x), every)
    assert torch.equal(to_bytes(x.to(torch.float64)), every)


def test_what_is_no_colour_is_clipped():
    assert to_bytes(torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


def test_draws_are_uniform_and_each_is_mirrored_by_a_fair_coin():
    pixels = torch.randint(0, 256, (3, 3, 4, 5), dtype=torch.uint8, generator=seeded())
    n = 6000
    x = to_bytes(Images(pixels, torch.zeros(3), "").sample(n, seeded(1)))
    versions = torch.cat([pixels, pixels.flip(3)])  # 6 of them, each as likely as another
    is_version = (x[:, None] == versions).flatten(2).all(2)
    assert (is_version.sum(1) == 1).all()
    counts = is_version.sum(0)
    assert ((counts - n / 6).abs() < 5 * math.sqrt(n * (1 / 6) * (5 / 6))).all(), counts


def test_draws_come_from_the_given_generator_alone():
    data = Images(torch.arange(12 * 48).view(12, 3, 4, 4).to(torch.uint8), torch.zeros(12), "")
    state = torch.get_rng_state()
    rng = seeded(1)
    first, second = data.sample(8, rng), data.sample(8, rng)
    assert torch.equal(first, data.sample(8, seeded(1)))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (8, 3, 4, 4)
    assert first.dtype == torch.float32


def test_a_grid_holds_each_image_in_its_place():
    x = from_bytes(torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8, generator=seeded()))
    sheet = np.asarray(Image.open(io.BytesIO(png_grid(x, columns=3))))
    assert sheet.shape == (2 * 4, 3 * 6, 3)
    for i in range(5):
        top, left = i // 3 * 4, i % 3 * 6
        there = torch.tensor(sheet[top : top + 4, left : left + 6]).permute(2, 0, 1)
        assert torch.equal(there, to_bytes(x[i]))
    assert (sheet[4:, 12:] == 255).all()  # where there is no sixth


# Files as they should be


def test_pixels_and_labels_are_those_of_the_file(root):
    made = pictures(6)
    write(
        root, "cifar10/train.parquet", img=[compressed(p) for p in made], label=[3, 1, 4, 1, 5, 9]
    )
    data = cifar10()
    expected = torch.stack([torch.tensor(np.array(p)) for p in made]).permute(0, 3, 1, 2)
    assert torch.equal(data.pixels, expected)
    assert data.pixels.is_contiguous()
    assert data.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert data.source == "CIFAR-10"


def test_jpeg_is_named_and_grey_images_become_rgb(root):
    grey = pictures(2, mode="L")
    write(root, "cifar10/test.parquet", img=[compressed(p) for p in grey], label=[0, 0])
    data = cifar10("test")
    assert data.pixels.shape == (2, 3, 32, 32)
    assert (data.pixels == data.pixels[:, :1]).all()
    for name in ("train", "test"):
        write(
            root,
            f"cifar10/{name}.parquet",
            img=[compressed(p, "jpeg") for p in pictures(3)],
            label=[0, 1, 2],
        )
        assert cifar10(name).source == "CIFAR-10 (JPEG)"


def test_a_changed_file_is_read_anew(root):
    for label in (3, 7):
        write(root, "cifar10/train.parquet", img=[compressed(pictures(1)[0])], label=[label])
        assert cifar10().labels.tolist() == [label]


def test_stl10_is_resized_and_has_no_labels(root):
    half = Image.new("RGB", (96, 96), (200, 100, 0))
    half.paste((0, 100, 200), (48, 0, 96, 96))
    write(root, "stl10/sample.parquet", image=[compressed(half), compressed(half)])
    data = stl10()
    assert data.pixels.shape == (2, 3, 48, 48)
    assert data.pixels[0, :, 20, 5].tolist() == [200, 100, 0]
    assert data.pixels[1, :, 20, 40].tolist() == [0, 100, 200]
    assert data.labels.tolist() == [-1, -1]
    assert stl10(32).pixels.shape == (2, 3, 32, 32)


# Files that are not


def test_a_missing_file_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"has no cifar10/train\.parquet: name the folder"):
        cifar10()
    with pytest.raises(FileNotFoundError, match=r"has no stl10/sample\.parquet"):
        stl10()
    with pytest.raises(ValueError, match="splits 'train' and 'test', not 'valid'"):
        cifar10("valid")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_one_sentence(root, capfd, keep):
    path = write(
        root, "cifar10/train.parquet", img=[compressed(p) for p in pictures()], label=[0] * 6
    )
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep > 1 else int(keep * len(data))])
    with pytest.raises(ValueError, match=r"train\.parquet is truncated or no parquet file"):
        cifar10()
    assert capfd.readouterr() == ("", "")


GOOD = [compressed(picture) for picture in pictures(3)]
WRONG = {
    "no images": ({"text": ["a", "b", "c"]}, "no column 'img' of images: is it CIFAR-10?"),
    "no rows": ({"img": [], "label": []}, "no column 'img' of images"),
    "another column type": ({"img": [1, 2, 3], "label": [0, 1, 2]}, "no images in its column"),
    "no labels": ({"img": GOOD}, "no labels from 0 to 9: is it CIFAR-10"),
    "labels of 100": ({"img": GOOD, "label": [0, 99, 3]}, "no labels from 0 to 9"),
    "words for labels": ({"img": GOOD, "label": ["a", "b", "c"]}, "labels that are no whole"),
    "a gap in the labels": ({"img": GOOD, "label": [1, None, 3]}, "labels that are no whole"),
    "a damaged image": (
        {
            "img": [GOOD[0], {"bytes": GOOD[1]["bytes"][:200], "path": None}, GOOD[2]],
            "label": [0, 1, 2],
        },
        "image 1 cannot be read: fetch the file again",
    ),
    "no picture at all": (
        {"img": [GOOD[0], GOOD[1], {"bytes": b"\x00" * 99, "path": None}], "label": [0, 1, 2]},
        "image 2 cannot be read",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_something_else_is_refused_by_one_sentence(root, capfd, name):
    columns, advice = WRONG[name]
    write(root, "cifar10/train.parquet", **columns)
    with pytest.raises(ValueError, match=advice):
        cifar10()
    assert capfd.readouterr() == ("", "")


# The hub


def test_without_a_network_one_sentence_says_what_to_do_at_once(no_network, capfd):
    for load, file in ((cifar10, r"cifar10/train\.parquet"), (stl10, r"stl10/sample\.parquet")):
        with pytest.raises(
            ConnectionError, match=f"connect to the network, set {VARIABLE} .*{file}"
        ):
            load()
    assert capfd.readouterr() == ("", "")


def test_offline_mode_asks_the_cache_only(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    clock = time.monotonic()
    with pytest.raises(ConnectionError, match=f"set {VARIABLE} to a folder"):
        cifar10("test")
    assert time.monotonic() - clock < 5


def test_the_hub_is_asked_for_the_unlabelled_images(monkeypatch):
    asked = []

    def fetch(name, *, split):
        asked.append((name, split))
        return datasets.Dataset.from_dict({"image": GOOD})

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", fetch)
    assert stl10(32).pixels.shape == (3, 3, 32, 32)
    assert asked == [("jxie/stl10", "unlabeled")]


# The real ones


@with_data
def test_the_real_cifar10():
    data = cifar10("test")
    assert data.pixels.shape == (10_000, 3, 32, 32)
    assert data.labels.bincount().tolist() == [1000] * len(CIFAR10_CLASSES)
    if (Path(DATA) / "README.md").exists():  # the copy that comes with the project
        assert data.source == "CIFAR-10 (JPEG)"
    # ships stand on water: their lower third is bluer than a frog's
    blue = from_bytes(data.pixels[:, 2, 22:]).mean((1, 2)) - from_bytes(
        data.pixels[:, 0, 22:]
    ).mean((1, 2))
    ship, frog = (blue[data.labels == CIFAR10_CLASSES.index(name)] for name in ("ship", "frog"))
    assert ship.mean() - frog.mean() > 5 * math.sqrt((ship.var() + frog.var()) / 1000)


@with_data
def test_the_real_stl10():
    data = stl10()
    assert data.pixels.shape[1:] == (3, 48, 48)
    assert data.source == "STL-10"
    assert from_bytes(data.pixels).std() > 0.3
