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
from gradnoise.problem.items import Gathering, fetched, holds_samples, readable, stream_of
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


def test_batches_of_tensors_are_not_touched() -> None:
    data = [(torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(2, 2), torch.zeros(2))]
    assert all(a is b for a, b in zip(readable(data), data, strict=True))
    loader = DataLoader(data)
    assert readable(loader) is loader
    found = fetched([(own[0], 1) for own in ROWS], {"batch_size": 1})
    assert all(isinstance(batch, list) for batch in found)  # as the loader gives them


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
