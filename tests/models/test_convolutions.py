"""Networks made ready to run compute what they computed before, at any size of input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.models.convolutions import PackedConvolution, made_ready

EXAMPLE = torch.zeros(1, 3, 16, 16)


class PaddedAbove(nn.Conv2d):
    """A convolution that pads in its own way, as timm's do for TensorFlow's weights."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(pixels, (0, 1, 0, 1)))


class NormAndClamp(nn.BatchNorm2d):
    """A batch norm that brings its activation, as timm's does."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU6()

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.act(super().forward(pixels))
        return out


class Network(nn.Module):
    """Every kind of layer that the encoders have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = PaddedAbove(3, 8, 2, stride=2, bias=False), NormAndClamp(8)
        self.wide, self.wide_norm = nn.Conv2d(8, 16, 3, padding=1), NormAndClamp(16)
        self.deep, self.deep_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.short = nn.Sequential(nn.Conv2d(8, 16, 1, stride=1), nn.BatchNorm2d(16))
        self.relu6 = nn.ReLU6()
        self.last = nn.Conv2d(16, 4, 3, dilation=2)

    def forward(self, pixels: Tensor) -> Tensor:
        stem = self.stem_norm(self.stem(pixels))
        deep = self.deep_norm(self.deep(self.wide_norm(self.wide(stem))))
        out: Tensor = self.last(self.relu6(deep + self.short(stem)))
        return out.mean((2, 3))


def network() -> nn.Module:
    """The network with weights and statistics that matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Network().eval()
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = torch.randn(layer.num_features) / 4
                layer.running_var = torch.rand(layer.num_features) + 0.5
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias)
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("size", [(1, 16), (5, 16), (2, 24)])
def test_outputs_stay_what_they_were(dtype: torch.dtype, tolerance: float, size: tuple[int, int]) -> None:
    pixels = torch.randn(size[0], 3, size[1], size[1], generator=torch.Generator().manual_seed(1))
    ready = made_ready(network(), EXAMPLE, dtype)
    with torch.inference_mode():
        torch.testing.assert_close(ready(pixels.to(dtype)).float(), network()(pixels), atol=tolerance, rtol=tolerance)


def test_no_batch_norm_is_left_and_every_plain_convolution_is_packed() -> None:
    layers = [type(layer) for layer in made_ready(network(), EXAMPLE, torch.float32).modules()]
    assert nn.BatchNorm2d not in layers and NormAndClamp not in layers and nn.Conv2d not in layers
    assert layers.count(PackedConvolution) == 4 and layers.count(PaddedAbove) == 1
    assert layers.count(nn.ReLU6) == 2  # the stem's own, since that layer is not packed, and the one after the sum


def test_a_dtype_without_packed_kernels_runs_through_the_plain_layers() -> None:
    ready = made_ready(network(), EXAMPLE, torch.float64)
    assert not any(isinstance(layer, PackedConvolution) for layer in ready.modules())
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ready(pixels), network().double()(pixels))
