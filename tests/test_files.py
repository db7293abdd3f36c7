from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from internimage import files
from internimage.files import json_text, locked, remove_leftovers, writing

# Locks the file of its argument, forks a child that stays (as a worker that reads images would), and is killed.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from internimage.files import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print("locked", flush=True)  # by the child, which has run by then
        time.sleep(20)
        os._exit(0)
    sys.stdin.readline()
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        expected = rf"run is in use by process {process.pid} on "
        with pytest.raises(BlockingIOError, match=expected), locked(path):
            pass
        process.kill()
        process.wait()
        with locked(path):  # the child that still lives does not keep the lock
            assert f"process {os.getpid()} on" in path.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert path.parent.is_dir() and not path.exists()


def test_a_lock_is_for_one_user_of_this_process_too(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / ".lock"):
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"), locked(tmp_path / "new" / ".lock"):
            pass
        assert (tmp_path / "new" / ".lock").exists()
    assert not (tmp_path / "new").exists()


def test_a_stale_lock_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on elsewhere, and a longer text")
    with locked(tmp_path / ".lock"):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / ".lock"):
        assert "has no locks" in caplog.text


def test_leftovers_of_killed_writes(tmp_path: Path) -> None:
    ours = [".state.pt.0123abcd.tmp", ".last.safetensors.ffffffff.tmp"]
    others = [".state.pt.0123abcd.tmp2", ".other.0123abcd.tmp", "state.pt", ".state.pt.tmp", ".stateXpt.0123abcd.tmp"]
    for name in ours + others:
        (tmp_path / name).touch()
    assert sorted(path.name for path in remove_leftovers(tmp_path, ("state.pt", "last.safetensors"))) == sorted(ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_strict_json() -> None:
    assert json_text({"a": (1, float("inf")), "b": [{"c": float("nan")}]}) == '{"a": [1, null], "b": [{"c": null}]}'
    assert json_text([1.5, "NaN", None], indent=None) == '[1.5, "NaN", null]'


def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match=r"cannot write a\.csv: no space is left there"), writing(Path("a.csv")):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), writing(Path("a.csv")):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert {errno.ENOSPC, errno.EDQUOT} <= files.FULL
