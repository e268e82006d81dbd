"""Windows of a convolution, and the gradients of its weight, held to torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradnoise.per_sample.hooks.convolution import Convolution, Correlated
from tests.factored_cases import COUNT, normal

SLIDES: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding": 1},
    "strided": {"stride": 2},
    "dilated": {"dilation": 2},
    "all": {"padding": (2, 1), "stride": (1, 2), "dilation": (2, 1)},
}


@pytest.mark.parametrize("name", SLIDES)
def test_windows_are_those_of_unfold(name: str) -> None:
    options = {"stride": 1, "padding": 0, "dilation": 1, **SLIDES[name]}
    inputs = normal(COUNT, 3, 7, 8)
    how = Correlated.of(2, (3, 2), options["stride"], options["padding"], options["dilation"], 1)
    windows = how.windows(inputs)  # [n, c, *positions, *kernel]
    found = windows.permute(0, 1, 4, 5, 2, 3).reshape(COUNT, 3 * 6, -1)
    torch.testing.assert_close(found, F.unfold(inputs, (3, 2), **options))


GRADIENTS: dict[str, tuple[Any, Any]] = {
    "few inputs: windows": ((4, 2, 3, 3), {"padding": 1}),
    "many inputs: grouped": ((4, 16, 3, 3), {"padding": 1, "stride": 2}),
    "few positions: Gram": ((32, 16, 3, 3), {}),
    "groups": ((4, 2, 3, 3), {"groups": 2}),
    "same, even kernel": ((4, 2, 2, 4), {"padding": "same"}),
    "valid": ((4, 2, 2, 3), {"padding": "valid"}),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_single_convolutions(name: str) -> None:
    shape, options = GRADIENTS[name]
    groups = options.get("groups", 1)
    size = 3 if "Gram" in name else 5
    weight, inputs = normal(*shape).requires_grad_(), normal(COUNT, groups * shape[1], size, size)
    outputs = F.conv2d(inputs, weight, **options)
    delta = normal(*outputs.shape)

    def single(i: int) -> Tensor:
        return torch.autograd.grad(outputs[i], weight, delta[i], retain_graph=True)[0]

    truth = torch.stack([single(i) for i in range(COUNT)])
    slide = (options.get("stride", 1), options.get("padding", 0), 1, groups)
    how = Correlated.of(2, weight.shape[2:], *slide)
    found = Convolution(inputs[:, None], delta[:, None], weight.shape, how)
    torch.testing.assert_close(found.gradients(slice(0, COUNT)), truth)
    torch.testing.assert_close(found.measure().sq_norms, truth.flatten(1).square().sum(1))
    torch.testing.assert_close(found.measure().total, truth.sum(0))
    ways = {"few inputs": "windows", "many inputs": "grouped convolution", "few positions": "Gram"}
    for start, way in ways.items():
        if name.startswith(start):
            assert found.method()[0].startswith(way)
