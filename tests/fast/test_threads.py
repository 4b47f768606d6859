import os
import subprocess
import sys
import threading

import cv2
import pytest
import torch

from v3recon._fast.threads import let_helpers_sleep, share_out, threads_limited


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 3), (7, 1), (7, 2), (3, 5), (50, 0)])
def test_every_item_is_done_once(count, workers):
    done: list[int] = []
    share_out(done.append, count, workers)
    assert sorted(done) == list(range(count))


def test_items_are_done_at_the_same_time():
    meeting = threading.Barrier(3, timeout=30)
    share_out(lambda _: meeting.wait(), 3, 3)  # would wait in vain with fewer threads


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_in_the_caller(workers):
    def fail(item: int) -> None:
        if item == 4:
            raise KeyError(item)

    with pytest.raises(KeyError, match="4"):
        share_out(fail, 9, workers)


def test_an_error_of_a_helper_is_raised_in_the_caller():
    both, caller = threading.Barrier(2, timeout=30), threading.get_ident()

    def fail_elsewhere(_: int) -> None:
        both.wait()
        if threading.get_ident() != caller:
            raise KeyError("helper")

    with pytest.raises(KeyError, match="helper"):
        share_out(fail_elsewhere, 2, 2)


def test_limits_hold_inside_only():
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(3)
        cv2.setNumThreads(3)
        with pytest.raises(OSError, match="full"), threads_limited(1, 2):
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 2)
            found: list[int] = []
            worker = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            worker.start()
            worker.join()
            assert found == [1]
            with threads_limited(2):
                assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
            raise OSError("the disk is full")
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_the_users_choice_stays(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    let_helpers_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    let_helpers_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_the_program_can_still_choose():
    """The module must not import torch, which reads the environment only once."""
    code = "import sys, v3recon.reconstruct, v3recon.threads; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
