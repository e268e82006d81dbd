"""Fused operations as the simpler ones they consist of, each of which is traced.

Recurrent layers keep torch's order of gates: (i, f, g, o) for LSTM, (r, z, n) for GRU.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import EngineError

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, State], State]  # from W x and W h, and the state before


def _lstm(inputs: Tensor, hidden: Tensor, state: State) -> State:
    i, f, g, o = (inputs + hidden).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(inputs: Tensor, hidden: Tensor, state: State) -> State:
    (r, z, n), (hr, hz, hn) = inputs.chunk(3, -1), hidden.chunk(3, -1)
    reset, update = (r + hr).sigmoid(), (z + hz).sigmoid()
    candidate = (n + reset * hn).tanh()
    return (candidate + update * (state[0] - candidate),)


def _tanh(inputs: Tensor, hidden: Tensor, state: State) -> State:
    return ((inputs + hidden).tanh(),)


def _relu(inputs: Tensor, hidden: Tensor, state: State) -> State:
    return ((inputs + hidden).relu(),)


def _alone(cell: Cell) -> Callable[..., Any]:
    """`torch.lstm_cell`, `torch.gru_cell`, `torch.rnn_tanh_cell`, `torch.rnn_relu_cell`."""

    def run(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
    ) -> Any:
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        new = cell(F.linear(input, w_ih, b_ih), F.linear(state[0], w_hh, b_hh), state)
        return new if len(new) > 1 else new[0]

    return run


def _layers(cell: Cell) -> Callable[..., Any]:
    """`torch.lstm`, `torch.gru`, `torch.rnn_tanh`, `torch.rnn_relu` on padded sequences."""

    def run(
        input: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> tuple[Tensor, ...]:
        if not isinstance(has_biases, bool):
            raise EngineError("a packed sequence, in which no dimension indexes the samples")
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        outputs = input.transpose(0, 1) if batch_first else input
        directions = 2 if bidirectional else 1
        each = len(params) // (num_layers * directions)
        last: list[State] = []
        for layer in range(num_layers):
            if layer and dropout and train:
                outputs = F.dropout(outputs, dropout)
            both = []
            for direction in range(directions):
                index = layer * directions + direction
                weights = params[index * each : (index + 1) * each]
                start = tuple(state[index] for state in states)
                found, end = _direction(cell, outputs, start, weights, has_biases, direction == 1)
                both.append(found)
                last.append(end)
            outputs = torch.cat(both, -1) if bidirectional else both[0]
        ends = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        return (outputs.transpose(0, 1) if batch_first else outputs, *ends)

    return run


def _direction(
    cell: Cell,
    inputs: Tensor,
    state: State,
    weights: Sequence[Tensor],
    has_biases: bool,
    backwards: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction over (T, n, d)."""
    w_ih, w_hh, *others = weights
    b_ih, b_hh = (others[0], others[1]) if has_biases else (None, None)
    projection = others[-1] if len(others) == (3 if has_biases else 1) else None
    projected = F.linear(inputs, w_ih, b_ih)
    outputs: list[Tensor] = []
    for entry in reversed(projected) if backwards else projected:
        state = cell(entry, F.linear(state[0], w_hh, b_hh), state)
        if projection is not None:
            state = (F.linear(state[0], projection), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Bags of one length, shape (n, T): rows looked up, then reduced."""
    if offsets is not None or scale_grad_by_freq or max_norm is not None:
        raise EngineError("an embedding bag with offsets, max_norm or scale_grad_by_freq")
    rows = F.embedding(input, weight, padding_idx)
    padding = None if padding_idx is None else padding_idx % weight.shape[0]
    counted = torch.ones_like(input) if padding is None else (input != padding)
    if mode == "max":
        largest = rows.masked_fill(counted[..., None] == 0, -torch.inf).amax(1)
        return largest.masked_fill(~counted.bool().any(1, keepdim=True), 0.0)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    total = (rows * counted[..., None].to(rows.dtype)).sum(1)
    if mode == "sum":
        return total
    return total / counted.sum(1, keepdim=True).clamp(min=1)


UNFUSED: dict[Any, Callable[..., Any]] = {
    torch.lstm: _layers(_lstm),
    torch.gru: _layers(_gru),
    torch.rnn_tanh: _layers(_tanh),
    torch.rnn_relu: _layers(_relu),
    torch.lstm_cell: _alone(_lstm),
    torch.gru_cell: _alone(_gru),
    torch.rnn_tanh_cell: _alone(_tanh),
    torch.rnn_relu_cell: _alone(_relu),
    F.embedding_bag: embedding_bag,
}


def simpler(func: Any) -> Callable[..., Any] | None:
    """An operation as the simpler ones that it consists of, where they can be seen; else None."""
    if isinstance(func, types.FunctionType) and func.__module__.partition(".")[0] == "torch":
        return UNFUSED.get(func) or _opened(func)
    return UNFUSED.get(func)


@functools.cache  # of torch's own functions alone: those that a model makes would never be let go
def _opened(func: types.FunctionType) -> Callable[..., Any]:
    """The body of an operation that torch writes in Python, without its check for modes."""
    past = dict.fromkeys(_CHECKS, lambda *_: False)
    twin = types.FunctionType(
        func.__code__,
        {**func.__globals__, **past},
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    twin.__kwdefaults__ = func.__kwdefaults__
    return twin


_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
