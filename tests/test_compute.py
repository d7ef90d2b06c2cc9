from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch

from service.compute import use_all_cores


def test_a_thread_that_comes_later_computes_alone() -> None:
    with ThreadPoolExecutor(1, initializer=use_all_cores) as device, ThreadPoolExecutor(1) as other:
        assert device.submit(torch.get_num_threads).result() == (
            int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))
        )
        assert other.submit(torch.get_num_threads).result() == 1
