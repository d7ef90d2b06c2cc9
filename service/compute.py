"""Which threads compute: the device thread with every core, and no other.

OpenMP keeps a team of workers for each thread that ever computed in parallel. Once the teams have more threads than
there are cores, idle workers sleep instead of spinning, and waking them makes every small operation ten times slower
(docs/performance.md). So every thread starts with one worker, itself, and the device thread alone asks for more. It and its
team give way to all other threads: they keep every core busy, and a request is to be read, or refused, at once all the same.
Between the steps of a forward idle workers spin; for longer they would only take a core from the threads that serve.
"""

from __future__ import annotations

import os
import sys
import threading

VARIABLE = "OMP_NUM_THREADS"
SPINS = "GOMP_SPINCOUNT", "10000"  # of libgomp's idle workers before they sleep, some tenths of a millisecond; else 300,000
NICER = 10  # than the process's other threads, in steps of Linux's nice
_cores = int(os.environ.get(VARIABLE) or len(os.sched_getaffinity(0)))


def limit_threads() -> None:
    """Let threads compute alone unless they ask for more; to be called before anything imports torch."""
    os.environ[VARIABLE] = "1"
    os.environ.setdefault(*SPINS)


def device_threads() -> int:
    """How many threads the device thread computes with: every core of the process, or what OMP_NUM_THREADS said at its start."""
    return _cores


def use_all_cores() -> None:
    """Let this thread compute with every core of the process, or as many as OMP_NUM_THREADS said at its start.

    Other threads come first on them from now on.
    """
    import torch

    if sys.platform == "linux":  # where threads have priorities of their own, and those that they start inherit them
        here = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, here, os.getpriority(os.PRIO_PROCESS, here) + NICER)
    torch.set_num_threads(_cores)
    torch.get_num_threads()  # a thread's first use of torch takes the number that was set last, by whichever thread
    last = threading.Thread(target=torch.set_num_threads, args=(1,))  # for all threads that come later
    last.start()
    last.join()
