"""The fingerprint of a tensor changes with every value."""

from __future__ import annotations

import pytest
import torch

from gradnoise.tensors.fingerprint import fingerprint, fingerprints


def test_it_changes_with_every_sign_and_exponent_in_float64() -> None:
    entries = torch.nn.Linear(16, 1, bias=False, dtype=torch.float64).weight.data.view(-1)
    for change in (torch.neg, lambda entry: 2 * entry):
        found = {fingerprint(entries)[1]}
        for index in range(16):
            entries[index] = change(entries[index])
            found.add(fingerprint(entries)[1])
        assert len(found) == 17


def test_tensors_made_in_inference_mode_have_one() -> None:
    with torch.inference_mode():
        scale = torch.ones(2)
    before = fingerprint(scale)
    scale.data.mul_(2)
    assert fingerprint(scale) != before


@pytest.mark.parametrize(
    ("values", "index", "other"),
    [
        (torch.ones(2, dtype=torch.complex64), 0, 0),
        (torch.tensor([True, False]), 1, True),
        (torch.ones(3, dtype=torch.bfloat16), 2, 0),
    ],
    ids=["complex", "mask", "short"],
)
def test_values_of_every_kind_have_one(values: torch.Tensor, index: int, other: float) -> None:
    before = fingerprint(values)
    values[index] = other
    assert fingerprint(values)[1] != before[1]


def test_sparse_values_have_one() -> None:
    assert fingerprint(torch.eye(3).to_sparse())[1] != fingerprint(2 * torch.eye(3).to_sparse())[1]


def test_several_have_each_their_own_in_order() -> None:
    several = [torch.ones(2), torch.eye(3, dtype=torch.int64), torch.zeros(0), torch.ones(2) + 1]
    assert fingerprints(several) == tuple(map(fingerprint, several))
    assert len(set(fingerprints(several))) == 4
    assert fingerprints([]) == ()
