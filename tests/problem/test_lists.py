"""Which lists hold batches, and which hold single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import gradnoise as gn
from gradnoise.problem.items import fetched
from gradnoise.problem.lists import holds_samples, readable
from tests.ragged_cases import CASES, Graphs

ROWS = [torch.full((1 + k % 3, 2), float(k)) for k in range(10)]
DICTS = [{"x": own, "note": f"{k}"} for k, own in enumerate(ROWS)]


def listed(samples: list[Any]) -> list[Any]:
    return samples


def test_batches_of_tensors_are_not_touched() -> None:
    data = [(torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(2, 2), torch.zeros(2))]
    assert all(a is b for a, b in zip(readable(data), data, strict=True))
    loader = DataLoader(data)
    assert readable(loader) is loader
    found = fetched([(own[0], 1) for own in ROWS], {"batch_size": 1})
    assert all(isinstance(batch, list) for batch in found)  # as the loader gives them


def test_which_lists_hold_samples() -> None:
    x = torch.zeros(4, 2)
    assert holds_samples(DICTS)
    assert holds_samples([(x, 1), (x, 2)])
    assert holds_samples([(x, {"boxes": x[:1]}), (x, {"boxes": x[:2]})])
    assert holds_samples(CASES["graphs"].samples)
    assert not holds_samples([(x, x), (x, x)])
    assert not holds_samples([{"x": x}, {"x": x}])
    assert not holds_samples([x, x[:2]])
    assert not holds_samples([x, [{"y": x[:1]}] * 4])
    assert not holds_samples([Graphs.from_data_list(CASES["graphs"].samples)] * 2)
    assert not holds_samples(["a", "b"])
    assert not holds_samples(DICTS[:1])


def test_which_mappings_are_samples() -> None:
    """Batches may differ in size too, and hold a number for each batch."""
    lengths = [torch.zeros(n, 2) for n in (3, 4, 2)]
    assert holds_samples([{"x": x, "y": k} for k, x in enumerate(lengths)])
    assert holds_samples([{"x": x, "y": x.sum() + k} for k, x in enumerate(lengths)])
    assert holds_samples([{"x": lengths[0], "name": name} for name in "abc"])
    assert not holds_samples([{"x": x, "task": "first", "scale": 0.5} for x in lengths])
    assert not holds_samples([{"x": lengths[0], "items": k} for k in range(3)])
    assert not holds_samples([{"x": x, "y": x[:, 0]} for x in lengths])


SAMPLE_DICTS = [{"x": torch.ones(3, 2), "y": torch.tensor(1.0)} for _ in range(4)]
MODEL = nn.Linear(2, 1)


def each(model: nn.Module, batch: Any) -> Tensor:
    return torch.stack([(model(own["x"]).sum() - own["y"]) ** 2 for own in batch])


def test_samples_that_were_taken_as_batches_are_named() -> None:
    """F15: each dict is a batch as well as a sample; the loss is not to blame."""
    said = r"The 4 entries of the list `data` were each taken as a batch.*pass DataLoader\(data"
    with pytest.raises(gn.LossError, match=said):
        gn.gradient_moments(MODEL, each, SAMPLE_DICTS)
    cured = DataLoader(SAMPLE_DICTS, batch_size=2, collate_fn=listed)
    assert gn.gradient_moments(MODEL, each, cured).trace_cov.samples == 4
    with pytest.raises(KeyError) as caught:
        gn.gradient_moments(MODEL, lambda _, batch: batch[0], SAMPLE_DICTS)
    notes = getattr(caught.value, "__notes__", ["The 4 entries of the list"])  # from 3.11 on
    assert "The 4 entries of the list" in notes[0]
    pairs = [(torch.ones(3, 2), torch.ones(3))] * 4
    with pytest.raises(gn.LossError, match=r"^(?!.*entries of the list)"):
        gn.gradient_moments(MODEL, lambda model, batch: model(batch[0]), pairs)
