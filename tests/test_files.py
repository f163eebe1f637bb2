"""Files that are whole or not there."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logitflow.files import write_atomically


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=4096), earlier=st.none() | st.binary(max_size=64))
def test_what_is_written_is_read(tmp_path, data, earlier):
    path = tmp_path / "deep" / "er" / "file.bin"
    if earlier is not None:
        write_atomically(path, earlier)
    write_atomically(str(path), data)
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == ["file.bin"]


def test_others_may_read_it(tmp_path):
    write_atomically(tmp_path / "file", b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("moment", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("fault", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment, fault):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_):
        raise fault

    monkeypatch.setattr(os, moment, fail)
    with pytest.raises(type(fault)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_data_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    """Flushed and synced first: a power cut between the two leaves the old file, not an empty one."""
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, real=real: (order.append(name), real(*a))[1]
        )
    write_atomically(tmp_path / "file", b"x")
    assert order == ["fsync", "replace"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "below", b"y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(Path(tmp_path / "folder"), b"y")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
