"""Samples kept one by one where the batches of a loader, a data set or a list cannot be cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

import gradnoise as gn
from gradnoise.problem.items import Gathering, fetched, stream_of
from gradnoise.problem.samples import Samples
from gradnoise.tensors.ragged import Items, Ragged, opened
from tests.ragged_cases import CASES, Graph, Graphs

ROWS = [torch.full((1 + k % 3, 2), float(k)) for k in range(10)]
DICTS = [{"x": own, "note": f"{k}"} for k, own in enumerate(ROWS)]


def listed(samples: list[Any]) -> list[Any]:
    return samples


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(DICTS)


class Own(Dataset[Any]):
    def __len__(self) -> int:
        return len(DICTS)

    def __getitem__(self, index: int) -> Any:
        return dict(DICTS[index])


def first_numbers(samples: Samples) -> list[float]:
    batches = [opened(batch) for batch in samples.batches]
    return [float(own["x"][0, 0]) for batch in batches for own in batch]


KINDS: dict[str, Any] = {
    "list": DICTS,
    "data set": Own(),
    "loader": DataLoader(DICTS, batch_size=4, collate_fn=listed),
    "shuffled loader": DataLoader(Own(), batch_size=4, collate_fn=listed, shuffle=True),
    "stream": Stream(),
    "stream loader": DataLoader(Stream(), batch_size=3, collate_fn=listed),
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_drawn_from_all_that_holds_them(kind: str) -> None:
    whole = Samples.draw(KINDS[kind])
    assert sorted(first_numbers(whole)) == [float(k) for k in range(10)]
    part = Samples.draw(KINDS[kind], max_samples=6, micro_batch=4, seed=2)
    assert len(set(first_numbers(part))) == part.count == 6
    assert max(part.counts) <= 4
    half, rest = whole.halves(seed=1)
    assert sorted(first_numbers(half) + first_numbers(rest)) == [float(k) for k in range(10)]


def test_all_batches_share_one_list_of_samples() -> None:
    samples = Samples.draw(KINDS["loader"])
    assert len({id(batch.items) for batch in samples.batches}) == 1


def test_one_batch_that_can_be_cut_by_chance_changes_nothing() -> None:
    """The last batch holds one sample, whose tensors agree."""
    samples = [(own, own[:, 0]) for own in ROWS]

    def joined(chosen: list[Any]) -> Any:
        return torch.cat([x for x, _ in chosen]), torch.zeros(len(chosen))

    found = fetched(samples, {"batch_size": 3, "collate_fn": joined})
    assert all(isinstance(batch, Ragged) for batch in found)
    assert [len(batch.positions) for batch in found] == [3, 3, 3, 1]


def test_a_loader_with_an_order_of_its_own_is_followed() -> None:
    sampler = WeightedRandomSampler(torch.ones(10), 8)
    loader = DataLoader(DICTS, batch_size=4, sampler=sampler, collate_fn=listed)
    samples = Samples.draw(loader)
    assert samples.count == 8
    assert "WeightedRandomSampler" in samples.notes[0]
    assert loader.collate_fn is listed


class Wrapped(DataLoader[Any]):
    """A loader that does more to its batches, as those for neighbours in a graph."""

    def __iter__(self) -> Any:
        return iter([Graphs.from_data_list(CASES["graphs"].samples[:4])])


def test_what_a_loader_of_its_own_kind_gives_is_taken_apart() -> None:
    (found,) = stream_of(Wrapped(DICTS, batch_size=4, collate_fn=listed))
    assert isinstance(found, Ragged)
    assert type(opened(found)) is Graphs


def test_graphs_in_a_list_come_as_the_batch_of_their_library(monkeypatch: Any) -> None:
    library, data = ModuleType("torch_geometric"), ModuleType("torch_geometric.data")
    data.Batch = Graphs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_geometric", library)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", data)

    class Data(Graph):
        edge_index: Any = None

    Data.__module__ = "torch_geometric.data.data"
    graphs = [Data(own.x, own.edges, own.y) for own in CASES["graphs"].samples]
    samples = Samples.draw(graphs)
    assert samples.count == len(graphs)
    assert type(opened(samples.batches[0])) is Graphs


class Sealed:
    """A batch that only its model can read."""

    def __init__(self) -> None:
        self.rows = torch.zeros(3, 2)


def test_batches_that_cannot_be_taken_apart_are_refused_with_a_cure() -> None:
    with pytest.raises(gn.DataError, match=r"batch that is a Sealed. Pass the DataLoader or the D"):
        Gathering()(Sealed())
    cured = Samples.draw(DataLoader(ROWS, batch_size=2, collate_fn=lambda _: Sealed()))
    assert cured.count == 10
    offsets = (torch.zeros(9), torch.tensor([0, 3, 7]))
    with pytest.raises(gn.DataError, match=r"must agree.*\(9,\), \(3,\).*pass the DataLoader or"):
        Samples.draw(offsets)


def test_default_collation_of_a_loader_that_fails() -> None:
    with pytest.raises(gn.DataError, match=r"default collation cannot.*Give the DataLoader a coll"):
        Samples.draw(DataLoader(DICTS, batch_size=4))
    with pytest.raises(gn.DataError, match=r"default collation cannot.*Give the DataLoader a coll"):
        Samples.draw(DataLoader(Stream(), batch_size=4))
    samples = Samples.draw(DataLoader(DICTS, batch_size=4, collate_fn=listed))  # the cure
    assert samples.count == 10


def test_an_error_within_a_collate_function_of_the_user_is_the_users() -> None:
    def strict(_: list[Any]) -> Any:
        raise TypeError("of mine")

    with pytest.raises(TypeError, match="of mine"):
        Samples.draw(DataLoader(DICTS, batch_size=4, collate_fn=strict))


MODEL = nn.Linear(2, 1)


def test_names_beside_tensors_are_those_of_the_samples() -> None:
    seen: list[Any] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append((batch["name"], batch["x"][:, 0].tolist()))
        return model(batch["x"])[:, 0] ** 2

    named = [{"x": torch.full((2,), float(k)), "name": f"{k}"} for k in range(6)]
    measured = gn.measure(MODEL, loss, DataLoader(named, batch_size=3))
    assert measured.engine.name == "hooks"
    assert measured.moments().trace_cov.samples == 6
    assert all([f"{x:.0f}" for x in rows] == names for names, rows in seen)


def test_items_are_positions_of_one_list() -> None:
    items = Items(ROWS, listed)
    assert [float(x[0, 0]) for x in opened(Ragged(torch.tensor([3, 1]), items))] == [3.0, 1.0]
