"""Every test runs on one thread, from fixed seeds, and hypothesis tries the same examples each time."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import settings

matplotlib.use("agg")
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture
def headless():
    """The Agg backend, and rcParams as they were."""
    with matplotlib.rc_context():
        plt.switch_backend("Agg")
        yield
    plt.close("all")


@pytest.fixture
def no_network(monkeypatch):
    """Neither a local folder of data nor a hub that answers."""

    def unreachable(*args, **settings):
        raise OSError("no network")

    monkeypatch.delenv("LOGITFLOW_DATA", raising=False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr("datasets.load_dataset", None)
