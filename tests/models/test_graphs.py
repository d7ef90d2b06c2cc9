"""Adapters in a bank, as on a GPU: any mix gives what each row gives alone, and what was captured gives it for others, too.

There is no GPU to test on. What stands in for its graphs records the steps of one forward by tracing, and replays them on
the tensors that they were recorded with: a step that asked the host would be missing, or have its answer baked in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from service.models.bank_runs import BankRuns, RunsShape
from service.models.base_weights import load_base
from service.models.graphs import KEPT, Compute, Graphs
from service.models.linear import Dtype
from service.models.text_classifier import Batch, LoadedTextAdapter, Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.store.bundle import read_bundle
from tests.support.bundles import make_text_bundle

CPU = torch.device("cpu")
WIDE: dict[str, Any] = {"r": 16, "target_modules": ["key", "output.dense"]}
FROM_ALONE: dict[Dtype, float] = {"fp32": 1e-5, "bf16": 0.1}  # as for the kernels: see test_text_classifier.py
HOST = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")  # what waits for the device


def traced(compute: Compute) -> Compute:
    """Stands in for CUDA's graphs."""
    steps: Compute = make_fx(compute)()
    return steps


@dataclass(frozen=True)
class World:
    """The same adapters on one base model: in a bank, in one whose forwards are captured, and in their own memory."""

    banked: TextClassifier
    captured: TextClassifier
    adapters: list[LoadedTextAdapter]
    captured_adapters: list[LoadedTextAdapter]
    expected: TextClassifier
    expected_adapters: list[LoadedTextAdapter]


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def world(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base, dtype = load_base(str(tiny_base)), request.param
    specs: list[dict[str, Any]] = [{"r": 1}, {"r": 8, "target_modules": "all-linear"}, WIDE, WIDE]
    bundles = [
        read_bundle(make_text_bundle(tiny_base, tmp_path_factory.mktemp("adapter"), ["a", "b"], seed=seed, scale=0.1, **spec))
        for seed, spec in enumerate(specs)
    ]
    expected = TextClassifier(TextEncoder(base, CPU), max_rank=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.models.kernels.available", False)
        patch.setattr("service.models.product_kernel.bfloat16_available", False)
        patch.setattr("service.models.product_kernel.float32_available", False)
        patch.setattr("service.models.linear.has_kernels", lambda *_: False)
        made = [TextClassifier(TextEncoder(base, CPU, dtype, capture=capture), 64, 10**7) for capture in (None, traced)]
        loaded = [
            [one.load(one.parse(bundle.config, bundle.tensors, len(bundle.manifest.labels))) for bundle in bundles]
            for one in (*made, expected)
        ]
        yield World(made[0], made[1], loaded[0], loaded[1], expected, loaded[2])


Rows = list[tuple[list[int], int | None]]
ROWS = st.lists(
    st.tuples(st.lists(st.integers(5, 30000), min_size=1, max_size=40), st.one_of(st.none(), st.integers(0, 3))),
    min_size=1,
    max_size=12,
)


def rows_of(adapters: list[LoadedTextAdapter], rows: Rows) -> list[Row]:
    return [Row(ids, None if which is None else adapters[which]) for ids, which in rows]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_mix_equals_one_by_one_and_the_kernels(world: World, rows: Rows) -> None:
    bound = FROM_ALONE[world.banked.encoder.dtype]
    made = rows_of(world.adapters, rows)
    together = world.banked.forward(world.banked.collate(made))
    exact = world.expected.forward(world.expected.collate(rows_of(world.expected_adapters, rows)))
    for row, one, kernels in zip(made, together, exact, strict=True):
        scale = max(1.0, float(kernels.abs().max()))
        torch.testing.assert_close(world.banked.forward(world.banked.collate([row]))[0], one, atol=bound * scale, rtol=0)
        torch.testing.assert_close(one, kernels, atol=bound * scale, rtol=0)


def test_a_captured_forward_answers_other_adapters_in_the_same_buffers(world: World) -> None:
    classifier, bound = world.captured, FROM_ALONE[world.captured.encoder.dtype]
    graphs = classifier.encoder._graphs
    assert graphs is not None
    places = set()
    for turn, worn in enumerate([(2, 3, None), (2, 2, 3), (3, None, 2), (3, 3, None), (2, 3, 3)]):
        rows: Rows = [(list(range(5 + turn, 25 + 2 * turn + 3 * number)), which) for number, which in enumerate(worn)]
        batch = classifier.collate(rows_of(world.captured_adapters, rows))
        together = classifier.forward(batch)
        for row, one in zip(rows_of(world.adapters, rows), together, strict=True):
            alone = world.banked.forward(world.banked.collate([row]))[0]
            torch.testing.assert_close(one, alone, atol=bound * max(1.0, float(alone.abs().max())), rtol=0)
        captured = graphs._known[batch.packed.shape, shape_of(batch)]
        assert (captured is None) == (turn == 0)
        if captured is not None:
            places.add((captured.packed.data_ptr(), captured.runs.data_ptr()))
    assert len(places) == 1


def shape_of(batch: Batch) -> RunsShape:
    assert isinstance(batch.lora, BankRuns)
    return batch.lora.shape


def test_an_adapter_loaded_after_the_capture_answers_through_it(world: World, tiny_base: Path, tmp_path: Path) -> None:
    classifier = world.captured
    bundle = read_bundle(make_text_bundle(tiny_base, tmp_path, ["a", "b"], seed=9, scale=0.1, **WIDE))
    ids = [7, 8, 9, 10]
    for _ in range(2):
        classifier.forward(classifier.collate([Row(ids, world.captured_adapters[2])]))
    late, plain = (one.load(one.parse(bundle.config, bundle.tensors, 2)) for one in (classifier, world.banked))
    found, alone = classifier.forward(classifier.collate([Row(ids, late)]))[0], world.banked.collate([Row(ids, plain)])
    torch.testing.assert_close(found, world.banked.forward(alone)[0], atol=FROM_ALONE[classifier.encoder.dtype], rtol=0)


def test_no_step_asks_the_host(world: World) -> None:
    encoder, rows = world.captured.encoder, rows_of(world.captured_adapters, [([5] * 9, 0), ([6] * 30, 1), ([7] * 3, None)])
    batch = world.captured.collate(rows)
    runs, packed = batch.lora, batch.packed
    assert isinstance(runs, BankRuns)

    def forward(tokens: Tensor, told: Tensor) -> Tensor:
        return encoder.first_states(replace(packed, inputs=tokens), replace(runs, inputs=told))

    with torch.inference_mode():
        steps = make_fx(forward, tracing_mode="fake", _allow_non_fake_inputs=True)(packed.inputs, runs.inputs)
        names = {str(node.target) for node in steps.graph.nodes if node.op == "call_function"}
        assert names and not [name for name in names if any(host in name for host in HOST)]
        torch.testing.assert_close(steps(packed.inputs, runs.inputs), forward(packed.inputs, runs.inputs))


def test_shapes_are_few_and_only_so_many_are_kept(world: World) -> None:
    classifier = world.captured
    sizes = [
        classifier.collate(rows_of(world.captured_adapters, [([5] * length, which) for which in range(runs)]))
        for length in (9, 12, 16)
        for runs in (3, 4)
    ]
    assert len({(batch.packed.shape.width, batch.packed.shape.rows) for batch in sizes}) == 1
    graphs = Graphs(lambda packed, _: packed.inputs[:1], lambda compute: compute)
    for length in range(1, KEPT + 10):
        batch = classifier.collate([Row([5] * length, None)])
        graphs(replace(batch.packed, shape=replace(batch.packed.shape, width=length)), batch.lora)  # type: ignore[arg-type]
    assert len(graphs._known) == KEPT
