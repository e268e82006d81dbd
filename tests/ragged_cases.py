"""Samples that no tensor holds together: models, losses, and how training makes batches of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

COUNT = 18
SOURCE = torch.Generator().manual_seed(5)


def lengths(least: int, most: int) -> list[int]:
    return torch.randint(least, most + 1, (COUNT,), generator=SOURCE).tolist()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=SOURCE, dtype=torch.float64)


class Graph:
    """As `torch_geometric.data.Data`: `to` moves it in place."""

    def __init__(self, x: Tensor, edges: Tensor, y: Tensor) -> None:
        self.x, self.edges, self.y = x, edges, y

    def to(self, device: torch.device) -> Graph:
        for name, tensor in list(vars(self).items()):
            setattr(self, name, tensor.to(device) if isinstance(tensor, Tensor) else tensor)
        return self


class Graphs(Graph):
    """As its `Batch`: nodes and edges of all graphs in one tensor each."""

    sizes: list[tuple[int, int]]

    @classmethod
    def from_data_list(cls, graphs: list[Graph]) -> Graphs:
        sizes = [len(graph.x) for graph in graphs]
        starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
        made = cls(
            torch.cat([graph.x for graph in graphs]),
            torch.cat([g.edges + start for g, start in zip(graphs, starts, strict=False)], 1),
            torch.cat([graph.y for graph in graphs]),
        )
        made.batch = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(sizes))
        made.sizes = [(len(graph.x), graph.edges.shape[1]) for graph in graphs]
        return made

    def to_data_list(self) -> list[Graph]:
        nodes, edges = zip(*self.sizes, strict=True)
        starts = torch.tensor([0, *nodes]).cumsum(0).tolist()
        parts = zip(self.x.split(nodes), self.edges.split(edges, 1), self.y, starts, strict=False)
        return [Graph(x, own - start, y[None]) for x, own, y, start in parts]


def graphs() -> list[Graph]:
    sizes = lengths(2, 6)
    return [
        Graph(normal(n, 3), torch.randint(n, (2, 2 * n), generator=SOURCE), normal(1))
        for n in sizes
    ]


class GraphNet(nn.Module):
    """One step of messages, and the mean over the nodes of a graph."""

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.embed, self.between = nn.Linear(3, 4), nn.Sequential(*between)
        self.head = nn.Linear(4, 1)

    def forward(self, batch: Graphs) -> Tensor:
        sent = batch.x.index_add(0, batch.edges[1], batch.x[batch.edges[0]])
        nodes = self.between(torch.tanh(self.embed(sent)))
        count = len(batch.y)
        sums = torch.zeros(count, 4, dtype=nodes.dtype).index_add(0, batch.batch, nodes)
        return self.head(sums / torch.bincount(batch.batch, minlength=count)[:, None])[:, 0]


def graph_loss(model: nn.Module, batch: Graphs) -> Tensor:
    assert type(batch) is Graphs
    return (model(batch) - batch.y) ** 2


Detection = tuple[Tensor, dict[str, Any]]


def detections() -> list[Detection]:
    sizes = zip(lengths(4, 7), lengths(1, 4), strict=True)
    return [
        (
            normal(2, height, 5),
            {
                "boxes": normal(k, 4),
                "labels": torch.randint(3, (k,), generator=SOURCE),
                "name": f"{k}.jpg",
            },
        )
        for height, k in sizes
    ]


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.boxes, self.kinds = nn.Conv2d(2, 3, 3), nn.Linear(3, 4), nn.Linear(3, 3)

    def forward(self, images: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        seen = [torch.tanh(self.conv(image[None])).mean((2, 3)) for image in images]
        return [(self.boxes(features), self.kinds(features)) for features in seen]


def detection_loss(model: nn.Module, batch: Any) -> Tensor:
    """It takes entries out of the targets, as some do."""
    images, targets = batch
    assert isinstance(images, tuple)
    found = []
    for (boxes, kinds), target in zip(model(images), targets, strict=True):
        labels = target.pop("labels")
        own = F.cross_entropy(kinds.expand(len(labels), 3), labels)
        found.append(own + (boxes - target.pop("boxes")).square().mean())
    return torch.stack(found)


def sequences() -> list[dict[str, Tensor]]:
    return [{"x": normal(length, 3), "y": normal(1)} for length in lengths(2, 6)]


def nested(samples: list[dict[str, Tensor]]) -> Any:
    inputs = torch.nested.nested_tensor([own["x"] for own in samples], layout=torch.jagged)
    return inputs, torch.cat([own["y"] for own in samples])


class Means(nn.Module):
    """The mean over every sequence of a jagged tensor, in a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.is_nested
        means = [torch.tanh(self.embed(own)).mean(0) for own in x.unbind()]
        return self.head(torch.stack(means))[:, 0]


def pair_loss(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2


def packed(samples: list[dict[str, Tensor]]) -> Any:
    inputs = pack_sequence([own["x"] for own in samples], enforce_sorted=False)
    return inputs, torch.cat([own["y"] for own in samples])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(3, 3), nn.Linear(3, 1)

    def forward(self, x: PackedSequence) -> Tensor:
        assert isinstance(x, PackedSequence)
        return self.head(self.cells(x)[1][0])[:, 0]


def one_by_one(model: nn.Module, batch: list[dict[str, Tensor]]) -> Tensor:
    """It takes entries out of the samples, as some do."""
    assert isinstance(batch, list)
    return torch.stack([((model(own.pop("x"))).mean() - own.pop("y")[0]) ** 2 for own in batch])


def padded(samples: list[dict[str, Tensor]]) -> Any:
    """Tensors of one length, lengths in a list, and a tensor for the whole batch."""
    counts = [len(own["x"]) for own in samples]
    gaps = [max(counts) - count for count in counts]
    rows = [F.pad(own.pop("x"), (0, 0, 0, gap)) for own, gap in zip(samples, gaps, strict=True)]
    targets = torch.cat([own.pop("y") for own in samples])
    return {"x": torch.stack(rows), "counts": counts, "y": targets, "scale": torch.tensor([0.5])}


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        own = torch.arange(x.shape[1]) < torch.tensor(counts)[:, None]
        return self.head((torch.tanh(self.embed(x)) * own[..., None]).sum(1))[:, 0]


def masked_loss(model: nn.Module, batch: Any) -> Tensor:
    assert batch["scale"].shape == (1,)
    return batch["scale"] * (model(batch["x"], batch["counts"]) - batch["y"]) ** 2


def same(samples: list[Any]) -> list[Any]:
    return samples


def pairs(samples: list[Any]) -> Any:
    return tuple(zip(*samples, strict=True))


@dataclass(frozen=True)
class Case:
    """A model in float64, its samples, and what training makes of some of them."""

    make: Callable[[], nn.Module]
    loss_fn: Callable[[nn.Module, Any], Tensor]
    samples: list[Any]
    collate: Callable[[list[Any]], Any]
    engine: str = "loop"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().double()


CASES = {
    "graphs": Case(GraphNet, graph_loss, graphs(), Graphs.from_data_list),
    "detection": Case(Detector, detection_loss, detections(), pairs),
    "jagged": Case(Means, pair_loss, sequences(), nested),
    "packed": Case(Recurrent, pair_loss, sequences(), packed),
    "list of dicts": Case(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)),
        one_by_one,
        [{**own, "note": "none"} for own in sequences()],
        same,
    ),
    "padding": Case(Masked, masked_loss, sequences(), padded, "hooks"),
}
