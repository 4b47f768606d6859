import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import pytest
import torch

from v3recon._fast.threads import belong_to_limit, let_helpers_sleep, share_out, threads_limited


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


def number_of_a_new_thread() -> int:
    found: list[int] = []
    worker = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    worker.start()
    worker.join()
    return found[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_limits_hold_inside_only(three_threads):
    opencv = cv2.getNumThreads()
    with pytest.raises(OSError, match="full"), threads_limited(1):
        assert torch.get_num_threads() == 1 == number_of_a_new_thread()
        with threads_limited(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
        assert cv2.getNumThreads() == opencv
        raise OSError("the disk is full")
    assert torch.get_num_threads() == 3 == number_of_a_new_thread()


def test_threads_that_overlap_leave_nothing_behind(three_threads):
    """The second starts under the first one's limit and ends after it."""
    inside, first_gone = threading.Event(), threading.Event()
    seen = {}

    def second() -> None:
        with threads_limited(2):
            inside.set()
            first_gone.wait(30)
        seen["second"] = torch.get_num_threads()

    with threads_limited(1):
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait(30)
    first_gone.set()
    thread.join()
    assert seen["second"] == 3
    assert torch.get_num_threads() == 3 == number_of_a_new_thread()


def test_helpers_keep_the_limit_of_their_caller(three_threads):
    with (
        threads_limited(2),
        ThreadPoolExecutor(1, initializer=belong_to_limit) as pool,
    ):

        def work() -> int:
            with threads_limited(1):
                pass
            return torch.get_num_threads()

        assert pool.submit(work).result() == 2
    assert number_of_a_new_thread() == 3


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
    modules = "sys, v3recon.cli.reconstruct, v3recon._fast.threads"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
