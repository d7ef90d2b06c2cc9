"""Forwards captured once for each shape and replayed: a GPU then waits for no launch of a single step.

What a captured forward reads stays where it was: the weights, the bank of factors, and inputs of its own, to which a
batch's are copied. docs/architecture.md says why nothing else is needed for other adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.models.bank_runs import BankRuns, RunsShape
from service.models.packed import Packed, Shape

KEPT = 64  # captured forwards; each has memory of its own for its inputs
Compute = Callable[[], Tensor]
Capture = Callable[[Compute], Compute]


@dataclass(frozen=True, slots=True)
class Captured:
    """A captured forward: where its inputs lie, and what computes it again and returns its result, always the same tensor."""

    packed: Tensor
    runs: Tensor
    replay: Compute


class Graphs:
    """Runs ``forward`` through what ``capture`` makes of it for each shape, from the second batch of that shape on."""

    def __init__(self, forward: Callable[[Packed, BankRuns], Tensor], capture: Capture) -> None:
        self._forward, self._capture = forward, capture
        self._known: OrderedDict[tuple[Shape, RunsShape], Captured | None] = OrderedDict()

    @torch.inference_mode()
    def __call__(self, packed: Packed, runs: BankRuns) -> Tensor:
        """What ``forward`` returns for a batch."""
        key = packed.shape, runs.shape
        if key not in self._known:
            self._keep(key, None)  # a shape that never comes again is not worth its capture
            return self._forward(packed, runs)
        captured = self._known[key]
        if captured is None:
            captured = self._captured(packed, runs)
        else:
            captured.packed.copy_(packed.inputs)
            captured.runs.copy_(runs.inputs)
        self._keep(key, captured)
        return captured.replay().clone()  # the next batch of this shape writes where this one's states lie

    def _keep(self, key: tuple[Shape, RunsShape], captured: Captured | None) -> None:
        self._known[key] = captured
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def _captured(self, packed: Packed, runs: BankRuns) -> Captured:
        own, other = replace(packed, inputs=packed.inputs.clone()), replace(runs, inputs=runs.inputs.clone())
        return Captured(own.inputs, other.inputs, self._capture(lambda: self._forward(own, other)))


def cuda_capture() -> Capture:
    """Captures by CUDA graphs, which share memory for what lies between their inputs and results."""
    pool = torch.cuda.graph_pool_handle()

    def capture(compute: Compute) -> Compute:
        graph, warm = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            compute()  # libraries set themselves up, which cannot be captured
        torch.cuda.current_stream().wait_stream(warm)
        # Other threads copy inputs and adapters meanwhile; that is no business of the captured stream.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = compute()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    return capture
