"""Copies from the host to the device that do not wait for what the device is computing."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from service.models.kernels import Array


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a GPU that all copies to it go through, beside the default one, which computes."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, complete on the device; only this thread waits for the copy. On the CPU it is the tensor itself."""
    if device.type != "cuda":
        return tensor.to(device)
    stream = _stream(device)
    with torch.cuda.stream(stream):
        there = tensor.pin_memory().to(device, non_blocking=True)
        arrived = stream.record_event()
    arrived.synchronize()
    # Its memory is that stream's, which otherwise might give it to another copy before the computing one has read it.
    there.record_stream(torch.cuda.default_stream(device))
    return there


def write(values: Tensor, at: Tensor, new: Tensor) -> None:
    """Write the lines ``new`` to the numbered ones of ``values`` on its device, past what that is computing."""
    if values.device.type != "cuda":
        values.index_copy_(0, at, new)
        return
    at, new, stream = sent(at, values.device), sent(new, values.device), _stream(values.device)
    with torch.cuda.stream(stream):
        values.index_copy_(0, at, new)
        written = stream.record_event()
    written.synchronize()


def sent_array(array: Array, device: torch.device) -> Tensor:
    """An array of numbers, complete on the device."""
    return sent(torch.from_numpy(np.ascontiguousarray(array)), device)
