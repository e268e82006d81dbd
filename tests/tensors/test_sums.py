"""Sums of squares and products, against float64."""

from __future__ import annotations

import pytest
import torch

from gradnoise.tensors.sums import BLOCK, by_parameter, dots, sq_norms, without_autocast


@pytest.mark.parametrize("width", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5, 200 * BLOCK])
def test_float32_is_added_in_blocks_and_then_in_float64(width: int) -> None:
    torch.manual_seed(1)
    first, second = torch.randn(3, width), torch.randn(3, width)
    exact = first.double().square().sum(1)
    assert float((sq_norms(first) / exact - 1).abs().max()) < 4e-7
    inner = (first.double() * second.double()).sum(1)
    scale = exact.sqrt() * second.double().square().sum(1).sqrt()
    assert float(((dots(first, second) - inner) / scale).abs().max()) < 4e-7
    assert sq_norms(first).dtype == dots(first, second).dtype == torch.float64


@pytest.mark.parametrize("width", [3, BLOCK, BLOCK + 1])
def test_products_of_whole_numbers_are_added_without_error(width: int) -> None:
    ones = torch.ones(2, width)
    assert sq_norms(2 * ones).tolist() == pytest.approx([4 * width, 4 * width], rel=4e-7)
    assert dots(2 * ones, 3 * ones).tolist() == [6 * width, 6 * width]


def test_all_dimensions_but_the_first_are_summed() -> None:
    tensor = torch.arange(24.0).double().reshape(2, 3, 4)
    torch.testing.assert_close(sq_norms(tensor), tensor.square().sum((1, 2)))
    assert dots(tensor, tensor + 1).tolist() == (tensor * (tensor + 1)).sum((1, 2)).tolist()
    assert sq_norms(torch.tensor([2.0, -3.0])).tolist() == [4, 9]


def test_inner_products_are_cut_at_the_ends_of_parameters() -> None:
    first, second = torch.arange(6.0).double(), torch.ones(6)
    assert by_parameter(first, second, [1, 2, 3]).tolist() == [0, 3, 12]


def test_an_autocast_around_the_call_does_not_round() -> None:
    """1 + 2⁻¹⁰ has no bfloat16; the product of matrices with it shows who rounded."""
    matrix = torch.full((1, 1), 1 + 2**-10)

    @without_autocast
    def square(given: torch.Tensor) -> torch.Tensor:
        """Its docstring."""
        return given @ given

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (matrix @ matrix).dtype == torch.bfloat16
        assert float(square(matrix)) == (1 + 2**-10) ** 2
        assert torch.is_autocast_enabled("cpu")
    assert square.__doc__ == "Its docstring."
