from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.compute import NICER, VARIABLE, device_threads, use_all_cores


def test_a_thread_that_comes_later_computes_alone() -> None:
    with ThreadPoolExecutor(1, initializer=use_all_cores) as device, ThreadPoolExecutor(1) as other:
        assert device.submit(torch.get_num_threads).result() == device_threads()
        assert other.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own here")
def test_the_device_thread_gives_way_to_all_others() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1, initializer=use_all_cores) as device:
        assert device.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result() == min(19, here + NICER)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


@pytest.mark.parametrize(("said", "expected"), [(None, len(os.sched_getaffinity(0))), ("3", 3)])
def test_the_device_thread_gets_every_core_or_what_was_said_at_the_start(said: str | None, expected: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | ({VARIABLE: said} if said else {})
    code = "from service.compute import device_threads, limit_threads; limit_threads(); print(device_threads())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == expected
