"""Fused operations as simpler ones, held to torch's own."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import wrap_torch_function

import gradnoise as gn
from gradnoise.per_sample.hooks.composite import UNFUSED, simpler
from tests.cases import features
from tests.engines import agree, choose_engine, summary
from tests.layer_cases import Function, ids, numbers, squares


def test_a_packed_sequence_is_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [3] * len(x), batch_first=True)
        return self.r(packed)[1][0]

    model = Function(forward, r=nn.GRU(3, 2, batch_first=True)).double()
    with pytest.raises(gn.EngineError, match="packed sequence"):
        summary(model, squares, numbers(3, 3)())


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"offsets": True}])
def test_bags_of_other_kinds_are_refused(options: dict[str, Any]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if "offsets" not in options:
            return F.embedding_bag(x, self.w, **options)
        return F.embedding_bag(x.reshape(-1), self.w, offsets=torch.arange(0, x.numel(), 4))

    with pytest.raises(gn.EngineError, match="an embedding bag with offsets, max_norm or"):
        summary(Function(forward, w=(5, 3)).double(), squares, ids(4)())


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_bags_with_padding_counted_from_the_end_and_empty_bags(mode: str) -> None:
    model = Function(
        lambda s, ids: F.embedding_bag(ids, s.w, mode=mode, padding_idx=-1), w=(5, 3)
    ).double()
    ids = torch.randint(5, (8, 4))
    ids[2] = 4  # nothing but padding
    assert agree(model, squares, ids) == "hooks"


def test_functions_that_a_model_makes_are_not_kept() -> None:
    made: list[weakref.ref[Any]] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        twice = wrap_torch_function(lambda own: (own,))(lambda own: 2 * own)
        made.append(weakref.ref(twice))
        return twice(self.a(x))

    assert choose_engine(Function(forward, a=nn.Linear(4, 3)).double(), squares, features())
    gc.collect()
    assert len(made) > 3
    assert not any(reference() for reference in made)


RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "time first": {"batch_first": False},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "without bias": {"bias": False},
    "projected": {"proj_size": 2},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [(n, o) for n in RECURRENT for o in OPTIONS if o != "projected" or n == "lstm"],
)
def test_recurrent_layers_give_what_torch_gives(name: str, options: str) -> None:
    given = {"batch_first": True, **OPTIONS[options]}
    if name == "rnn_relu":
        given["nonlinearity"] = "relu"
    layer = RECURRENT[name](4, 3, **given).double()
    x = torch.randn(5, 6, 4).double()
    batch = 5 if given["batch_first"] else 6
    directions = layer.num_layers * (2 if layer.bidirectional else 1)
    state = torch.randn(directions, batch, given.get("proj_size", 3)).double()
    start: Any = (state, torch.randn(directions, batch, 3).double()) if name == "lstm" else state
    arguments = (
        *(x, start, layer._flat_weights, layer.bias, layer.num_layers, 0.0, False),
        *(layer.bidirectional, layer.batch_first),
    )
    fused = getattr(torch, name)
    torch.testing.assert_close(UNFUSED[fused](*arguments), fused(*arguments))


CELLS = {"lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell, "rnn_tanh_cell": nn.RNNCell}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*CELLS, "rnn_relu_cell"])
def test_recurrent_cells_give_what_torch_gives(name: str, bias: bool) -> None:
    cell = CELLS.get(name, nn.RNNCell)(4, 3, bias).double()
    x, state = torch.randn(5, 4).double(), torch.randn(5, 3).double()
    start: Any = (state, torch.randn(5, 3).double()) if name == "lstm_cell" else state
    arguments = (x, start, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    fused = getattr(torch, name)
    torch.testing.assert_close(UNFUSED[fused](*arguments), fused(*arguments))


@pytest.mark.parametrize("padding", [None, 0, -1])
@pytest.mark.parametrize(
    ("mode", "weighted"), [("mean", False), ("sum", False), ("max", False), ("sum", True)]
)
def test_embedding_bags_give_what_torch_gives(mode: str, padding: Any, weighted: bool) -> None:
    weight, ids = torch.randn(5, 3).double(), torch.randint(5, (6, 4))
    ids[1] = 4 if padding == -1 else 0  # an empty bag where that is the padding
    options = {"mode": mode, "padding_idx": padding}
    if weighted:
        options["per_sample_weights"] = torch.randn(6, 4).double()
    expected = F.embedding_bag(ids, weight, **options)
    torch.testing.assert_close(UNFUSED[F.embedding_bag](ids, weight, **options), expected)


def test_only_what_torch_writes_in_python_is_opened() -> None:
    assert simpler(torch.add) is None
    assert simpler(test_only_what_torch_writes_in_python_is_opened) is None
    opened = simpler(F.bilinear) or simpler(F.hinge_embedding_loss)
    assert opened is not None
    x, y = torch.randn(4).double(), torch.tensor([1, -1, 1, -1])
    found = simpler(F.hinge_embedding_loss)(x, y)  # type: ignore[misc]
    torch.testing.assert_close(found, F.hinge_embedding_loss(x, y))
