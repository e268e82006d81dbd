"""Options of an eigenvalue solver as one value."""

from __future__ import annotations

import pytest
import torch

from gradnoise import ArgumentError
from gradnoise.linalg.eigen_options import EigenOptions
from gradnoise.linalg.lanczos import lanczos
from tests.spectra import spread


def test_they_are_those_of_lanczos() -> None:
    matrix, start = spread(40), torch.ones(40).double()
    chosen = {"k": 2, "which": "BE", "tol": 1e-6, "max_iterations": 30, "seed": 3}
    found = EigenOptions(**chosen, repeats=False, memory_budget=2**20).find(matrix, start)
    expected = lanczos(matrix, v0=start, **chosen, repeats=False, memory_budget=2**20)
    assert torch.equal(found.vectors, expected.vectors)
    assert found.matvecs == expected.matvecs
    assert torch.equal(EigenOptions().find(matrix).vectors, lanczos(matrix).vectors)


def test_an_option_out_of_range_is_refused_by_lanczos() -> None:
    with pytest.raises(ArgumentError, match="`which` must be one of"):
        EigenOptions(which="LR").find(torch.eye(3))
