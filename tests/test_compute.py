from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.compute import NICER, use_all_cores


def test_a_thread_that_comes_later_computes_alone() -> None:
    with ThreadPoolExecutor(1, initializer=use_all_cores) as device, ThreadPoolExecutor(1) as other:
        assert device.submit(torch.get_num_threads).result() == (
            int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
        )
        assert other.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own here")
def test_the_device_thread_gives_way_to_all_others() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1, initializer=use_all_cores) as device:
        assert device.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result() == min(19, here + NICER)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here
