"""torch_geometric: networks on graphs, in train mode."""

from __future__ import annotations

from typing import Any

import torch
import torch_geometric as pyg
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric import nn as gnn
from torch_geometric.data import Batch, Data

from ..case import BATCH, Case

NODES, GRAPHS, CLASSES = 16, 16, 3


def one_graph() -> Data:
    source = torch.Generator().manual_seed(2)
    x = torch.randn(NODES, 4, generator=source, dtype=torch.float64)
    edges = torch.randint(NODES, (2, 60), generator=source)
    y = torch.randint(CLASSES, (NODES,), generator=source)
    return Data(x=x, edge_index=pyg.utils.to_undirected(edges), y=y)


def many_graphs() -> list[Data]:
    """Graphs of three to seven nodes."""
    source = torch.Generator().manual_seed(3)
    found = []
    for _ in range(GRAPHS):
        nodes = int(torch.randint(3, 8, (), generator=source))
        x = torch.randn(nodes, 4, generator=source, dtype=torch.float64)
        edges = torch.randint(nodes, (2, 3 * nodes), generator=source)
        y = torch.randint(CLASSES, (1,), generator=source)
        found.append(Data(x=x, edge_index=pyg.utils.to_undirected(edges, num_nodes=nodes), y=y))
    return found


GRAPH, LIST = one_graph(), many_graphs()


def of_nodes(model: nn.Module, batch: Any) -> Tensor:
    """Samples are nodes of one graph, which is evaluated whole."""
    (nodes,) = batch
    logits = model(GRAPH.x, GRAPH.edge_index)
    return F.cross_entropy(logits[nodes], GRAPH.y[nodes], reduction="none")


def of_graphs(model: nn.Module, batch: Any) -> Tensor:
    """Samples are graphs, by their numbers."""
    (numbers,) = batch
    joined = Batch.from_data_list([LIST[int(k)] for k in numbers])
    return F.cross_entropy(model(joined), joined.y, reduction="none")


def nodes(_: torch.Generator) -> Any:
    return (torch.arange(NODES),)


def graphs(_: torch.Generator) -> Any:
    return [(part,) for part in torch.arange(GRAPHS).split(BATCH)]


class Pooled(nn.Module):
    """A network on nodes, and a classifier of the mean over each graph."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, CLASSES)

    def forward(self, data: Any) -> Tensor:
        states = self.body(data.x, data.edge_index)
        return self.head(gnn.global_mean_pool(states, data.batch))


def _node(name: str, kind: Any, unit: str = "sample", **kwargs: Any) -> Case:
    options = {"hidden_channels": 8, "num_layers": 2, "out_channels": CLASSES, "act": "elu"}
    random = "dropout" in kwargs
    return Case(
        f"{name}, nodes",
        lambda: kind(4, **options, **kwargs).double().train(),
        of_nodes,
        of_nodes,
        nodes,
        unit,  # the draws of one pass over the graph are those of all of its nodes
        random,
    )


def _graph(name: str, kind: Any, **more: Any) -> Case:
    kwargs = more.pop("kwargs", {})
    return Case(
        f"{name}, graphs",
        lambda: Pooled(kind(4, 8, 2, 8, **kwargs)).double().train(),
        of_graphs,
        of_graphs,
        graphs,
        **more,
    )


CASES = [
    _node("GCN", gnn.GCN),
    _node("GAT with dropout", gnn.GAT, unit="group", dropout=0.2, heads=2),
    _node("GraphSAGE", gnn.GraphSAGE),
    _graph("GIN", gnn.GIN),
    _graph("GIN with batch norm", gnn.GIN, kwargs={"norm": "batch_norm"}, unit="group"),
    _graph(
        "GCN with graph norm and dropout",
        gnn.GCN,
        kwargs={"norm": "graph_norm", "dropout": 0.2},
        random=True,
        unit="group",
    ),
]
