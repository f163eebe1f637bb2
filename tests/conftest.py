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
