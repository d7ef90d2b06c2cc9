"""The kernel in ``encoder_kernel.c``: the whole encoder over a batch in one call, without the interpreter between its steps."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from service.models import attention_kernel, heads_kernel, kernels
from service.models.heads import Heads
from service.models.kernel_linear import KernelLinear
from service.models.lora import NO_RUNS, Runs
from service.models.packed import Packed
from service.models.product_kernel import Kernel, Layer, Weights

MAX_WIDTH = 8192  # of states, as in the C file
available: bool = kernels.built("encoder_forward")
PRODUCTS: tuple[Kernel, ...] = ("float32_linear", "bfloat16_linear", "int8_linear")  # numbered as in the C file
LINEARS = ("query", "joined", "attention", "up", "down")


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Block(ctypes.Structure):
    _fields_ = (*((name, Layer) for name in LINEARS), ("attended", _Norm), ("after", _Norm))


class _Encoder(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "hidden", "heads", "products", "vocabulary", "longest", "nbytes")),
        ("epsilon", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("words", "positions", "kind")),
        ("embedded", _Norm),
        ("block", ctypes.POINTER(_Block)),
        ("pooler", Layer),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "all", "halfway", "ids", "positions", "starts")),
        *((name, ctypes.c_int64) for name in ("rows", "runs", "stride")),
        *((name, ctypes.c_void_p) for name in ("bounds", "table", "pooled")),
        *((name, ctypes.POINTER(heads_kernel.Job)) for name in ("dense", "out")),
        ("row", ctypes.c_int64),
    )


class Encoder:
    """An encoder with GELU whose linear layers all have the same kernel; made by :func:`encoder_of`."""

    def __init__(
        self,
        blocks: Sequence[_Block],
        pooler: Weights | None,
        weights: Mapping[str, Tensor],
        kept: Sequence[Weights],
        heads: int,
        epsilon: float,
    ) -> None:
        self._kept = weights, kept, pooler
        words, positions, kind = (
            weights[f"embeddings.{which}_embeddings.weight"] for which in ("word", "position", "token_type")
        )
        self._hidden, nbytes = words.shape[1], sum(tensor.nbytes for each in kept for tensor in each.tensors)
        self._encoder = _Encoder(
            len(blocks), self._hidden, heads, PRODUCTS.index(kept[0].kernel), len(words), len(positions), nbytes, epsilon,
            words.data_ptr(), positions.data_ptr(), kind.data_ptr(), _norm(weights, "embeddings"),
            (_Block * len(blocks))(*blocks), pooler.layer if pooler else Layer(),
        )  # fmt: skip

    def __call__(self, packed: Packed, runs: Runs) -> Tensor:
        """Each row's first-token state, (rows, hidden) in float32; the rows need no padding.

        Raises :class:`ValueError` for a token or position that there is no embedding for, and for too large a rank.
        """
        states = _empty(packed.rows, self._hidden)
        self._run(packed, runs, first=states)
        return states

    def answer(self, packed: Packed, runs: Runs, heads: Heads) -> tuple[Tensor, Tensor]:
        """The same states, and what ``heads`` make of them, (rows, labels of the most) in float32.

        Raises :class:`ValueError` as above, and for heads of other rows.
        """
        states, pooled = _empty(packed.rows, self._hidden), _empty(packed.rows, self._hidden)
        logits = _empty(packed.rows, heads.most)
        self._run(packed, runs, heads.jobs(logits, pooled, states), first=states, pooled=pooled)
        return states, logits

    def halfway_and_last(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Every token's state after half of the layers and its last one, (tokens, hidden) in float32, without any adapter.

        Raises :class:`ValueError` as above.
        """
        halfway, last = _empty(packed.tokens, self._hidden), _empty(packed.tokens, self._hidden)
        self._run(packed, NO_RUNS, all=last, halfway=halfway)
        return halfway, last

    def _run(
        self,
        packed: Packed,
        runs: Runs,
        jobs: tuple[heads_kernel.Job | None, heads_kernel.Job | None] = (None, None),
        **asked: Tensor,
    ) -> None:
        """Write what is asked for, by the fields of the batch, and do the heads' jobs."""
        batch = _Batch(
            *(asked[name].data_ptr() if name in asked else None for name in ("first", "all", "halfway")),
            packed.ids.data_ptr(), packed.positions.data_ptr(), packed.starts.ctypes.data,
            packed.rows, len(runs.bounds), runs.table.shape[1], runs.bounds.ctypes.data, runs.table.ctypes.data,
            asked["pooled"].data_ptr() if "pooled" in asked else None, *(ctypes.pointer(job) if job else None for job in jobs), 0,
        )  # fmt: skip
        if not kernels.call("encoder_forward", self._encoder, batch):
            raise ValueError("a token, a position, a rank or a head is beyond what the kernel reads")


def encoder_of(
    linears: Mapping[str, object], weights: Mapping[str, Tensor], layers: int, heads: int, activation: str, epsilon: float
) -> Encoder | None:
    """The encoder of these linear layers, by the text encoder's names for them, and the others' ``weights``, by transformers'.

    None where the kernel was not built, or does not do every step of this model on this processor.
    """
    inside, pooler = [linear for site, linear in linears.items() if site != "pooler"], linears.get("pooler")
    found = [linear.weights for linear in inside if isinstance(linear, KernelLinear)]
    every = len(found) == len(inside) and len({weights.kernel for weights in found}) == 1
    hidden = weights["embeddings.LayerNorm.weight"].shape[0]
    fits = hidden <= MAX_WIDTH and hidden // heads <= attention_kernel.MAX_SIZE and activation == "gelu"
    if not (available and every and fits and (pooler is None or isinstance(pooler, KernelLinear))):
        return None
    blocks = [_block(layer, linears, weights) for layer in range(layers)]
    return Encoder(blocks, pooler.weights if pooler else None, weights, found, heads, epsilon)


def _empty(rows: int, columns: int) -> Tensor:
    """A new tensor; torch would let go of Python's lock to make one, and the device might wait long to have it back."""
    return torch.from_numpy(np.empty((rows, columns), np.float32))


def _block(layer: int, linears: Mapping[str, object], weights: Mapping[str, Tensor]) -> _Block:
    joined = "kv" if f"{layer}.q" in linears else "qkv"
    found = (linears.get(f"{layer}.{site}") for site in ("q", joined, "attention", "up", "down"))
    here = f"encoder.layer.{layer}"
    return _Block(
        *(linear.weights.layer if isinstance(linear, KernelLinear) else Layer() for linear in found),
        _norm(weights, f"{here}.attention.output"), _norm(weights, f"{here}.output"),
    )  # fmt: skip


def _norm(weights: Mapping[str, Tensor], name: str) -> _Norm:
    return _Norm(*(weights[f"{name}.LayerNorm.{kind}"].data_ptr() for kind in ("weight", "bias")))
