from __future__ import annotations

import os
import subprocess
import sys

import pytest

from v3recon.io.atomic import replace_on_success, write_text_atomic


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_is_obeyed(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        write_text_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_an_old_file_keeps_its_permissions(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(0o640)
    write_text_atomic(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_errors_leave_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), replace_on_success(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_names_that_are_long_already(tmp_path):
    for name in ("é" * 100 + ".npy", "a" * 251 + ".npy", os.fsdecode(b"\xff" * 200), ".hidden"):
        with replace_on_success(tmp_path / name) as temporary:
            temporary.write_bytes(b"x")
            assert temporary.suffix == (tmp_path / name).suffix
        assert (tmp_path / name).read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 4


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os, sys; from v3recon.io.atomic import replace_on_success\n"
        "with replace_on_success(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a~") and left.suffix == ".txt"
    (tmp_path / ".mine~").write_text("kept")
    (tmp_path / f".b~00000000-{os.getpid()}-00000000.txt").write_text("of another machine")
    with replace_on_success(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 3
