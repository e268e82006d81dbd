"""Single samples out of a batch that is put together, and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from gradnoise.tensors.parts import taken_apart
from gradnoise.tensors.trees import map_leaves
from tests.ragged_cases import Graph, Graphs

ROWS = [torch.arange(float(2 * n)).reshape(n, 2) for n in (2, 1, 3)]
Y = torch.arange(3.0)
GRAPHS = [Graph(own, torch.zeros(2, len(own)).long(), Y[k : k + 1]) for k, own in enumerate(ROWS)]


def jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


KINDS = {
    "jagged": lambda own: (jagged([ROWS[k] for k in own]), Y[own]),
    "nested": lambda own: {"x": torch.nested.nested_tensor([ROWS[k] for k in own]), "y": Y[own]},
    "packed": lambda own: (pack_sequence([ROWS[k] for k in own], enforce_sorted=False), Y[own]),
    "graphs": lambda own: Graphs.from_data_list([GRAPHS[k] for k in own]),
    "lists": lambda own: ([ROWS[k] for k in own], tuple({"y": Y[k]} for k in own)),
    "names": lambda own: {"x": Y[own], "name": [f"{k}" for k in own], "task": "first"},
}


def plain(batch: Any) -> list[Any]:
    """All that a batch holds, to compare."""
    found: list[Any] = []

    def keep(leaf: Any) -> None:
        if isinstance(leaf, Tensor) and leaf.is_nested:
            found.extend(own.tolist() for own in leaf.unbind())
        elif isinstance(leaf, Tensor):
            found.append(leaf.tolist())
        elif isinstance(leaf, PackedSequence):
            found.extend(part.tolist() for part in leaf if isinstance(part, Tensor))
        elif isinstance(leaf, Graphs):
            found.extend(v.tolist() if isinstance(v, Tensor) else v for v in vars(leaf).values())
        else:
            found.append(leaf)

    map_leaves(keep, batch)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_the_samples_make_the_batch_of_them(kind: str) -> None:
    make = KINDS[kind]
    parts = taken_apart(make([0, 1, 2]))
    assert parts is not None
    samples, collate = parts
    assert len(samples) == 3
    for own in ([0, 1, 2], [1], [2, 0]):
        made = collate([samples[k] for k in own])
        assert type(made) is type(make(own))
        assert plain(made) == plain(make(own))


REFUSED = {
    "offsets": (torch.zeros(9), torch.tensor([0, 3, 7]), Y),
    "per batch": (torch.zeros(3, 2), torch.zeros(1)),
    "other counts": ([ROWS[0], ROWS[1]], Y),
    "an object": object(),
    "a tensor": Y,
    "no samples": ([], []),
    "text": "abc",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_apart(name: str) -> None:
    assert taken_apart(REFUSED[name]) is None
