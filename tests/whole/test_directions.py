"""Whatever is measured along directions, for parameters used through views, in every memory order.

A product with the wrong entries of a direction still is a plausible number: norms, sums and
variances are right, and nothing else says so. Truths are written out from single samples.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Summary, Wanted
from gradnoise.per_sample.hooks import chain_rule
from gradnoise.problem.directional import per_sample_curvatures
from gradnoise.problem.objective import Objective
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.fuzz import examples
from tests.layer_cases import Function

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
    monkeypatch.setattr(chain_rule, "_seen", lambda whole, place: whole.as_strided(*place))
    model, batch = Seen(VIEWS["last rows"]), samples()
    with pytest.raises(gn.EngineError, match="products of the gradients of parameter 'p'"):
        gn.PerSampleGradients(model, loss, batch, engine="hooks")
    direction = torch.randn(25).double()
    found = gn.PerSampleGradients(model, loss, batch) @ direction
    torch.testing.assert_close(found, gradients(model, batch) @ direction, **CLOSE)


HALVES = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


@functools.cache
def exact_half(dtype: torch.dtype) -> tuple[nn.Module, Any, oracles.Dense]:
    """A model and samples in half precision, and what they are without rounding."""
    model, (x, ids) = Seen(VIEWS["last rows"]).to(dtype), samples()
    wide = Seen(VIEWS["last rows"])
    wide.load_state_dict(model.state_dict())
    return model, (x.to(dtype), ids), oracles.dense(wide, loss, (x.to(dtype).double(), ids))


@pytest.mark.parametrize("size", [1e-7, 1.0, 1e7])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("engine", ["hooks", "loop"])
def test_half_precision_takes_directions_and_weights_of_any_size(
    engine: str, dtype: torch.dtype, size: float
) -> None:
    model, batch, exact = exact_half(dtype)
    source = torch.Generator().manual_seed(1)
    v, w = (size * torch.randn(k, generator=source).double() for k in exact.gradients.T.shape)
    along = per_sample_curvatures(Problem.open(model, loss, batch), v, [v])
    rows = gn.PerSampleGradients(model, loss, batch, engine=engine)
    covariance = gn.GradientCovariance(model, loss, batch, engine=engine)
    for found, truth in (
        (rows @ v, exact.gradients @ v),
        (rows.T @ w, exact.gradients.T @ w),
        (covariance @ v, exact.covariance @ v),
        (gn.Hessian(model, loss, batch, hvp="kept") @ v, exact.hessian @ v),
        (along.product, exact.hessian @ v),
        (along.values[:, 0], exact.hessians @ v @ v),
    ):
        error = float((found.double() - truth).norm() / truth.norm())
        assert error < HALVES[dtype]


def many_ways(p: Tensor, h: Tensor, ids: Tensor) -> Tensor:
    """A bias, a strided weight, a transposed table and a single entry of one parameter (6, 10)."""
    mixed = F.linear(h + p[0, 2:6], p[1:4, ::2][:, :4]).tanh()
    return torch.cat([mixed, F.embedding(ids, p[4:, 5:].T) * p[5, 3]], dim=-1)


MANY = View((6, 10), many_ways)


def layered() -> nn.Module:
    """Two layers, so that there are shares."""
    model = Function(
        lambda self, x, ids: self.last(self.first(x), ids),
        first=nn.Linear(4, 4),
        last=Seen(MANY),
    ).double()
    values = torch.linspace(-1, 1, 20).double().sin()
    nn.utils.vector_to_parameters(values, model.first.parameters())
    return model


def stepped(model: nn.Module, batch: Any) -> dict[str, Any]:
    """The optimizer's metric after a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    loss(model, batch).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return {"optimizer": optimizer, "metric": "optimizer"}


PART = {"population": "distribution"}
MEASURES: dict[str, Callable[..., Any]] = {
    "moments": lambda *of, **o: gn.gradient_moments(*of, variance=True, **PART, **o),
    "moments in the optimizer's metric": lambda model, loss, batch, **o: gn.gradient_moments(
        model, loss, batch, variance=True, **stepped(model, batch), **PART, **o
    ),
    "noise scale": lambda *of, **o: gn.noise_scale(*of, **PART, **o),
    "noise scale of a dataset": gn.noise_scale,
    "noise scale in the optimizer's metric": lambda model, loss, batch, **o: gn.noise_scale(
        model, loss, batch, **stepped(model, batch), **PART, **o
    ),
    "shares by layer": lambda *of, **o: gn.profile(*of, **o).layers,
    "noise scales by layer": lambda *of, **o: gn.layer_noise_scales(*of, **PART, **o),
    "covariance, written out": lambda *of, **o: gn.covariance(*of, k=3, **PART, **o),
    "covariance, by products": lambda *of, **o: gn.covariance(
        *of, k=3, method="lanczos", hessian=False, **PART, **o
    ),
    "diagnostics": lambda *of, **o: gn.diagnostics(*of, lr=0.1, **PART, **o),
    "profile": lambda *of, **o: gn.profile(*of, **PART, **o).estimates,
}


def numbers(found: Any) -> Iterator[Tensor]:
    """All numbers in a result, in order; eigenvectors without their sign."""
    if isinstance(found, (Tensor, float, int)):
        yield torch.as_tensor(found, dtype=torch.float64).reshape(-1)
    elif isinstance(found, dict):
        yield from itertools.chain.from_iterable(map(numbers, found.values()))
    elif is_dataclass(found):
        for own in fields(found):
            value = getattr(found, own.name)
            yield from numbers(value.abs() if own.name == "vectors" else value)


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_measured_along_directions_is_the_same_by_every_engine(name: str) -> None:
    found = [
        torch.cat([*numbers(MEASURES[name](layered(), loss, samples(12), engine=engine))])
        for engine in ("hooks", "loop")
    ]
    assert len(found[0]) > 10
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize("place", PLACES)
def test_products_are_those_of_matrices_written_out(place: str) -> None:
    model, batch = Seen(MANY, place), samples()
    rows = gradients(model, batch)
    spread, size = torch.cov(rows.T), rows.shape[1]
    jacobian = gn.PerSampleGradients(model, loss, batch, engine="hooks")
    covariance = gn.GradientCovariance(model, loss, batch, engine="hooks")
    block, weights = torch.randn(size, 3).double(), torch.randn(SAMPLES, 2).double()
    for direction in (
        block,
        block[:, 1],
        torch.randn(2, size + 5).double()[1, 5:],
        torch.randn(2, size).double().T,
        torch.ones(1).double().expand(size),
    ):
        torch.testing.assert_close(jacobian @ direction, rows @ direction, **CLOSE)
        torch.testing.assert_close(covariance @ direction, spread @ direction, **CLOSE)
    named = parts(block[:, 0].clone(), dict(model.named_parameters()), transposed)
    torch.testing.assert_close(jacobian @ named, rows @ block[:, 0], **CLOSE)
    torch.testing.assert_close(jacobian.T @ weights, rows.T @ weights, **CLOSE)
    torch.testing.assert_close(jacobian.T @ weights[:, 1], rows.T @ weights[:, 1], **CLOSE)


def test_estimates_are_those_of_matrices_written_out() -> None:
    model, batch = Seen(MANY), samples()
    exact = oracles.dense(model, loss, batch)
    mean, both = exact.gradients.mean(0), exact.hessian @ exact.covariance
    scale = gn.noise_scale(model, loss, batch, engine="hooks")
    assert float(scale.trace_hessian_cov) == pytest.approx(float(both.trace()), rel=1e-9)
    assert float(scale.grad_curvature) == pytest.approx(float(mean @ exact.hessian @ mean))
    assert scale.parts is not None
    sizes = [p.numel() for p in model.parameters()]
    own = torch.stack([part.sum() for part in torch.split(both.diagonal(), sizes)])
    torch.testing.assert_close(scale.parts.traces.mean(0), own, **CLOSE)
    moments = gn.gradient_moments(model, loss, batch, engine="hooks", population="distribution")
    torch.testing.assert_close(moments.slopes, exact.gradients @ mean, **CLOSE)
    top = gn.covariance(model, loss, batch, engine="hooks", method="lanczos", k=2, tol=1e-8)
    values = torch.linalg.eigvalsh(exact.covariance).flip(0)[:2]
    torch.testing.assert_close(top.eigenvalues, values, rtol=1e-7, atol=0)


def views_of(data: st.DataObject, tensor: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """A few random operations that look at a tensor in another way, applicable one by one."""
    steps: list[Callable[[Tensor], Tensor]] = []
    for _ in range(data.draw(st.integers(1, 4))):
        step = data.draw(st.sampled_from(RANDOM))(data, tensor)
        tensor = step(tensor)
        steps.append(step)
    return steps


def sliced(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    dim = data.draw(st.integers(0, tensor.ndim - 1))
    first = data.draw(st.integers(0, tensor.shape[dim] - 1))
    last = data.draw(st.integers(first + 1, tensor.shape[dim]))
    index = (slice(None),) * dim + (slice(first, last, data.draw(st.integers(1, 3))),)
    return lambda t: t[index]


def swapped(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    order = data.draw(st.permutations(range(tensor.ndim)))
    return lambda t: t.permute(order)


def copied(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    count = data.draw(st.integers(1, 2))
    return lambda t: t.unsqueeze(0).expand(count, *t.shape)


def chosen(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    index = data.draw(st.integers(0, tensor.shape[-1] - 1))
    return lambda t: t.select(-1, index) if t.ndim > 1 else t


def crossed(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda t: t.diagonal() if t.ndim > 1 else t


def rolled(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    width = data.draw(st.integers(1, tensor.shape[-1]))
    return lambda t: t.unfold(-1, width, 1)


def joined(data: st.DataObject, tensor: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda t: t.flatten()


RANDOM = (sliced, swapped, copied, chosen, crossed, rolled, joined)


@examples(60)
@given(st.data())
def test_random_views_agree_with_single_samples(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    chains = [views_of(data, torch.zeros(shape)) for _ in range(data.draw(st.integers(1, 3)))]

    def use(p: Tensor, h: Tensor, _ids: Tensor) -> Tensor:
        out = h
        for chain in chains:
            view = functools.reduce(lambda t, step: step(t), chain, p)
            features = h.sum((1, 2))[:, None] + torch.arange(view.numel()) / 3
            used = features.sin().view(-1, *view.shape) * view
            out = out * used.flatten(1).sum(1).tanh()[:, None, None] + h
        return out

    memory = MEMORIES[data.draw(st.sampled_from([*MEMORIES]))]
    place = data.draw(st.sampled_from(PLACES))
    check_passes(Seen(View(tuple(shape), use), place, memory), [memory])
