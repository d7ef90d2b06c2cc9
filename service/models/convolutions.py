"""A frozen convolutional network made ready to run: what training needs is folded away, weights lie as the device reads them.

None of it changes what the network computes, but for rounding. docs/performance.md has what each step gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.models.onednn import has_kernels

Activation = tuple[str, list[float], str]  # as oneDNN's binding takes it: what, with which numbers, by which method
RELU6: Activation = ("hardtanh", [0.0, 6.0], "")
NO_ACTIVATION: Activation = ("none", [], "")


def made_ready(module: nn.Module, example: Tensor, dtype: torch.dtype) -> nn.Module:
    """``module`` in ``dtype`` on the device of ``example``, which is one input; the given module is used up.

    Batch norms are folded into the convolutions before them and memory is channels-last. On a CPU, convolutions hold
    their weights in the layout of its kernels for inputs of this size; other sizes give the same, slower.
    """
    module = module.eval().requires_grad_(False)
    _fold(module)
    module = module.to(example.device, dtype).to(memory_format=torch.channels_last)
    if has_kernels(dtype, example.device):
        with torch.inference_mode():
            _pack(module, _input_sizes(module, example.to(dtype)))
    return module


class PackedConvolution(nn.Module):
    """A convolution with its weights in oneDNN's own layout, and perhaps the ReLU6 after it.

    Plain convolutions bring their weights into that layout again at every call.
    """

    def __init__(self, layer: nn.Conv2d, input_size: Sequence[int], *, relu6: bool) -> None:
        super().__init__()
        self._geometry = layer.padding, layer.stride, layer.dilation, layer.groups
        weight = layer.weight.contiguous(memory_format=torch.channels_last)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._geometry, input_size)
        self._bias, self._activation = layer.bias, RELU6 if relu6 else NO_ACTIVATION

    def forward(self, pixels: Tensor) -> Tensor:
        """The layer's output, channels-last."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            pixels, self._weight, self._bias, *self._geometry, *self._activation
        )
        return out


def _fold(module: nn.Module) -> None:
    """Fold each batch norm into the convolution registered right before it; an activation that it brings follows."""
    children = list(module.named_children())
    for (name, layer), (norm_name, norm) in pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            rest = [part for part in norm.children() if not isinstance(part, nn.Identity)]
            setattr(module, name, nn.Sequential(fuse_conv_bn_eval(layer, norm), *rest))
            setattr(module, norm_name, nn.Identity())
    for _, child in children:
        _fold(child)


def _input_sizes(module: nn.Module, example: Tensor) -> dict[nn.Module, Sequence[int]]:
    """What each convolution is given when the network runs on ``example``."""
    sizes: dict[nn.Module, Sequence[int]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes[layer] = inputs[0].shape

    hooks = [layer.register_forward_pre_hook(note) for layer in module.modules() if _is_plain(layer)]
    module(example)
    for hook in hooks:
        hook.remove()
    return sizes


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a convolution and nothing more: subclasses pad in their own way."""
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _pack(module: nn.Module, sizes: Mapping[nn.Module, Sequence[int]]) -> None:
    """Replace the convolutions in ``sizes``, each together with the ReLU6 that follows it in a sequence."""
    children = list(module.named_children())
    following = [child for _, child in children[1:]] if isinstance(module, nn.Sequential) else []
    for place, (name, layer) in enumerate(children):
        if isinstance(layer, nn.Conv2d) and layer in sizes:
            relu6 = place < len(following) and isinstance(following[place], nn.ReLU6)
            setattr(module, name, PackedConvolution(layer, sizes[layer], relu6=relu6))
            if relu6:
                setattr(module, children[place + 1][0], nn.Identity())
        else:
            _pack(layer, sizes)
