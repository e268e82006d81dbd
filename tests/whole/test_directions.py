"""Whatever is measured along directions, for parameters used through views, in every memory order.

A product with the wrong entries of a direction still is a plausible number: norms, sums and
variances are right, and nothing else says so. Truths are written out from single samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.engine import Summary, Wanted
from gradnoise.per_sample.hooks import chain_rule as pulled
from gradnoise.problem.objective import Objective
from tests import oracles

SAMPLES, PLACES = 6, ("pab", "apb", "abp")  # the parameter first, between others, and last
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
Use = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """A parameter p and its use, given activations h (n, 3, 4) and ids (n, 3) below 5."""

    shape: tuple[int, ...]
    use: Use


def attention(parts: Callable[[Tensor], Sequence[Tensor]]) -> Use:
    """Queries, keys and values from one fused weight."""

    def use(p: Tensor, h: Tensor, _ids: Tensor) -> Tensor:
        q, k, v = (F.linear(h, weight) for weight in parts(p))
        return (q[..., : k.shape[-1]] @ k.mT).softmax(-1) @ v

    return use


def twice(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Use:
    """Two layers from one parameter."""
    return lambda p, h, _: F.linear(F.linear(h, first(p)).tanh(), second(p))


def filters(h: Tensor, weight: Tensor) -> Tensor:
    return F.conv1d(h.mT, weight, padding=1)


VIEWS = {
    "whole": View((3, 4), lambda p, h, _: F.linear(h, p)),
    "first rows": View((5, 4), lambda p, h, _: h + p[:3]),
    "last rows": View((5, 4), lambda p, h, _: h + p[2:]),
    "every second column": View((3, 8), lambda p, h, _: h * p[:, 1::2]),
    "a slice of a slice": View((5, 6), lambda p, h, _: h + p[1:][:, :4][1:]),
    "an added dimension": View((5, 4), lambda p, h, _: h * p[None, 1:4]),
    "single entries": View((3, 4), lambda p, h, _: h * p[1, 2] + p[0, 0]),
    "a diagonal": View((5, 5), lambda p, h, _: h * p.diagonal(1)),
    "a transposed weight": View((4, 2), lambda p, h, _: F.linear(h, p.T)),
    "a transposed table": View((4, 5), lambda p, h, ids: h * F.embedding(ids, p.T)),
    "rows of a table": View((7, 4), lambda p, h, ids: h * F.embedding(ids, p[2:], 1)),
    "a table of two factors": View(
        (6, 5), lambda p, h, ids: h * (F.embedding(ids, p[:2].T) @ p[2:4, :4])
    ),
    "another shape": View((12,), lambda p, h, _: F.linear(h, p.view(3, 4))),
    "joined dimensions": View((2, 2, 4), lambda p, h, _: F.linear(h, p.flatten(0, 1))),
    "filters, permuted": View((3, 2, 4), lambda p, h, _: filters(h, p.permute(1, 2, 0))),
    "filters, every second entry": View((4, 4, 6), lambda p, h, _: filters(h, p[1:3, :, ::2])),
    "scale and shift in one": View((8,), lambda p, h, _: F.layer_norm(h, (4,), p[:4], p[4:])),
    "weight and bias in one": View((6, 4), lambda p, h, _: F.linear(h, p[:4], p[4])),
    "fused, chunked": View((12, 4), attention(lambda p: p.chunk(3))),
    "fused, unbound": View((3, 4, 4), attention(lambda p: p.unbind(0))),
    "fused, unbound at the back": View((4, 4, 3), attention(lambda p: p.unbind(-1))),
    "fused, split unevenly": View((8, 4), attention(lambda p: p.split([4, 2, 2]))),
    "fused, head by head": View(
        (12, 4), attention(lambda p: p.view(2, 3, 2, 4).transpose(0, 1).reshape(3, 4, 4))
    ),
    "one slice twice": View((6, 4), twice(lambda p: p[1:5], lambda p: p[1:5])),
    "slices apart": View((8, 4), twice(lambda p: p[:4], lambda p: p[4:])),
    "slices interleaved": View((8, 4), twice(lambda p: p[::2], lambda p: p[1::2])),
    "slices that overlap": View((6, 4), twice(lambda p: p[:4], lambda p: p[1:5])),
    "a weight and its transpose": View((3, 4), twice(lambda p: p, lambda p: p.T)),
    "one transpose twice": View((4, 4), twice(lambda p: p.T, lambda p: p.mT)),
    "whole and a column": View((5, 4), lambda p, h, _: F.linear(h, p) + p[:, 1]),
    "table and head": View((7, 4), lambda p, h, ids: F.linear(h * F.embedding(ids, p[2:]), p[2:])),
    "one row for all": View((4,), lambda p, h, _: h * p.unsqueeze(0).expand(3, -1)),
    "repeated in a weight": View((3, 1), lambda p, h, _: F.linear(h, p.expand(3, 4))),
    "windows": View((6,), lambda p, h, _: F.linear(h, p.unfold(0, 4, 1))),
    "strided by hand": View(
        (6,), lambda p, h, _: h * torch.as_strided(p, (3, 4), (1, 1), p.storage_offset())
    ),
    "a class token": View(
        (5, 4), lambda p, h, _: torch.cat([p[1:2].expand(len(h), -1, -1), h], dim=1)
    ),
    "a slice of a copy": View((5, 4), lambda p, h, _: h + (2 * p)[2:]),
    "rows in another order": View((5, 4), lambda p, h, _: h + p[[2, 0, 1]]),
}
COMPLEX = {  # numbers that two entries make, and parts of them
    "imaginary parts": lambda p, h, _: h * torch.view_as_complex(p).imag,
    "imaginary parts of the conjugate": lambda p, h, _: h * torch.view_as_complex(p).conj().imag,
    "sizes of products": lambda p, h, _: (h * torch.view_as_complex(p)).abs(),
    "parts of sums": lambda p, h, _: torch.view_as_real(
        h.to(torch.complex128) @ torch.view_as_complex(p).T
    ),
}


def as_it_is(values: Tensor) -> Tensor:
    return values


def within_more(values: Tensor) -> Tensor:
    """In a larger memory, not from its start."""
    return torch.cat([torch.ones(5).to(values), values.reshape(-1)])[5:].view(values.shape)


def transposed(values: Tensor) -> Tensor:
    """With the last dimension first in memory."""
    order = list(reversed(range(values.ndim)))
    return values.permute(order).contiguous().permute(order)


def every_second(values: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(values), values], dim=-1)[..., 1]


MEMORIES = {f.__name__: f for f in (as_it_is, within_more, transposed, every_second)}


class Seen(nn.Module):
    """Two parameters beside one that is used through a view; named in the order of `place`."""

    def __init__(
        self, view: View, place: str = "apb", memory: Callable[[Tensor], Tensor] = as_it_is
    ) -> None:
        super().__init__()
        self.use = view.use
        source = torch.Generator().manual_seed(3)
        values = {
            name: torch.randn(shape, generator=source, dtype=torch.float64)
            for name, shape in (("p", view.shape), ("a", (4,)), ("b", ()))
        }
        for name in place:
            self.register_parameter(name, nn.Parameter(memory(values[name])))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        h = (x * self.a).tanh()
        return self.b * self.use(self.p, h, ids)


def loss(model: nn.Module, batch: Any) -> Tensor:
    flat = model(*batch).flatten(1).tanh()
    return (flat + torch.linspace(0.1, 1, flat.shape[1]).to(flat)).square().sum(1)


def samples(count: int = SAMPLES) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(5)
    x = torch.randn(count, 3, 4, generator=source, dtype=torch.float64)
    return x, torch.randint(5, (count, 3), generator=source)


def gradients(model: nn.Module, batch: Any) -> Tensor:
    return oracles.dense(model, loss, batch, second=False).gradients


def parts(flat: Tensor, like: dict[str, Tensor], memory: Any = as_it_is) -> dict[str, Tensor]:
    """A vector by parameter: views of it, or each part in another memory order."""
    pieces = torch.split(flat, [p.numel() for p in like.values()])
    return {n: memory(v.view(p.shape)) for v, (n, p) in zip(pieces, like.items(), strict=True)}


def flat(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in named.values()])


def check(found: Summary, rows: Tensor, direction: Tensor) -> None:
    """All sums of one pass against gradients written out."""
    norms = torch.stack([*found.sq_norms.values()]).sum(0)
    torch.testing.assert_close(flat(found.total), rows.sum(0), **CLOSE)
    torch.testing.assert_close(norms, rows.square().sum(1), **CLOSE)
    assert found.dots is not None
    dots = torch.stack([*found.dots.values()]).sum(0)[:, 0]
    torch.testing.assert_close(dots, rows @ direction, **CLOSE)
    if found.squares is not None:
        torch.testing.assert_close(flat(found.squares), rows.square().sum(0), **CLOSE)


def check_passes(model: nn.Module, memories: Sequence[Callable[[Tensor], Tensor]]) -> None:
    """Every kind of pass of the hooks engine, with directions and scales in these memory orders."""
    batch, objective = samples(), Objective(model, loss)
    rows, size = gradients(model, batch), objective.size
    direction, scale = torch.randn(size + 3).double()[3:], torch.rand(size + 1).double()[1:]
    with objective.guard():
        engine = choose(objective, batch, "hooks")
        for memory in memories:
            along, scaled = (parts(t, objective.parameters, memory) for t in (direction, scale))
            along = {name: own[None] for name, own in along.items()}
            for variance in (False, True):
                (found,) = engine.summaries(batch, Wanted(along, variance))
                check(found, rows, direction)
            (found,) = engine.summaries(batch, Wanted(along, False, scaled))
            check(found, rows * scale, direction)
        (found,) = engine.summaries(batch, Wanted(along, True, scaled))
        check(found, rows * scale, direction)
        (chunk,) = engine.chunks(batch)
    written_out = torch.cat([g.reshape(SAMPLES, -1) for g in chunk.gradients.values()], 1)
    torch.testing.assert_close(written_out, rows, **CLOSE)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", VIEWS)
def test_a_pass_reads_directions_and_scales_where_the_view_looks(name: str, place: str) -> None:
    check_passes(Seen(VIEWS[name], place), [*MEMORIES.values()])


@pytest.mark.parametrize("memory", [m for m in MEMORIES if m != "as_it_is"])
@pytest.mark.parametrize("name", VIEWS)
def test_so_does_one_over_parameters_in_any_memory_order(name: str, memory: str) -> None:
    check_passes(Seen(VIEWS[name], memory=MEMORIES[memory]), [as_it_is])


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_are_made_of_entries_with_their_sign(name: str) -> None:
    check_passes(Seen(View((3, 4, 2), COMPLEX[name])), [as_it_is, transposed])


def test_a_view_that_looks_beyond_its_parameter_gives_nothing_to_its_neighbour() -> None:
    """Parameters that are slices of one vector, one of them looked at beyond its end."""

    def use(p: Tensor, h: Tensor, _ids: Tensor) -> Tensor:
        return h * torch.as_strided(p, (3, 4), (3, 1), p.storage_offset() + 4)

    whole, model = torch.randn(21).double(), Seen(View((12,), use))
    places = torch.split(whole, [4, 12, 1, 4])[:3]
    for name, place in zip("apb", places, strict=True):
        parameter = nn.Parameter(place.view(getattr(model, name).shape))
        model.register_parameter(name, parameter)
    check_passes(model, [as_it_is])


def test_an_engine_that_reads_a_direction_at_the_wrong_place_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulled, "_seen", lambda whole, place: whole.as_strided(*place))
    model, batch = Seen(VIEWS["last rows"]), samples()
    with pytest.raises(gn.EngineError, match="products of the gradients of parameter 'p'"):
        gn.PerSampleGradients(model, loss, batch, engine="hooks")
    direction = torch.randn(25).double()
    found = gn.PerSampleGradients(model, loss, batch) @ direction
    torch.testing.assert_close(found, gradients(model, batch) @ direction, **CLOSE)
