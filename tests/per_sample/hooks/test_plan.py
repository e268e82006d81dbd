"""Where samples are must be proven, not guessed: models and batches that invite a wrong guess."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.per_sample.hooks.backward import BackwardPass
from gradnoise.per_sample.hooks.engine import Hooks
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.layer_cases import Function, squares

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def agree(model: nn.Module, loss_fn: Any, batches: Any, engine: str = "auto") -> str:
    """Norms and moments are those of single samples; the engine that did it."""
    listed = batches if isinstance(batches, list) else [batches]
    dense = [oracles.dense(model, loss_fn, batch, second=False).gradients for batch in listed]
    truth = torch.cat(dense)
    moments = gn.gradient_moments(model, loss_fn, batches, engine=engine, variance=True)
    torch.testing.assert_close(moments.sq_norms, truth.square().sum(1), **CLOSE)
    assert float(moments.trace_cov) == pytest.approx(float(truth.var(0).sum()), rel=1e-9)
    norms = gn.per_sample_sq_norms(model, loss_fn, listed[-1], engine=engine)
    torch.testing.assert_close(norms, dense[-1].square().sum(1), **CLOSE)
    objective = Objective(model, loss_fn)
    with objective.guard():
        chosen = choose(objective, listed[0], engine)
        for batch in listed:
            list(chosen.chunks(batch))
    return chosen.name


class Multimodal(nn.Module):
    """Attention over audio that some samples do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, audio: Tensor, has: Tensor) -> Tensor:
        heard = self.attention(audio, audio, audio)[0].tanh().mean(1)
        return self.head(self.inner(x).tanh().mean(1) + has[:, None] * heard)


@pytest.mark.parametrize("has", [[0] * 5 + [1, 1, 0, 1, 1], [1] + [0] * 8 + [1], [0] * 9 + [1]])
def test_samples_without_a_gradient_prove_nothing(has: list[int]) -> None:
    model = Multimodal().double()
    x, audio = torch.randn(10, 3, 4).double(), torch.randn(10, 5, 4).double()
    batch = x, audio, torch.tensor(has, dtype=torch.float64)
    assert agree(model, squares, batch) == "hooks"


def test_what_no_sample_of_the_plan_uses_is_looked_at_in_every_batch() -> None:
    model = Multimodal().double()
    parts = [torch.zeros(10), torch.tensor([0.0, 1] * 5), torch.ones(10)]
    batches = [
        (torch.randn(10, 3, 4).double(), torch.randn(10, 5, 4).double(), has.double())
        for has in parts
    ]
    assert agree(model, squares, batches) == "hooks"


def sorted_by_length(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
    order = torch.argsort(lengths, descending=True, stable=True)
    hidden = self.inner(x[order]).tanh()
    return self.head(hidden[torch.argsort(order)].sum(1))


@pytest.mark.parametrize(
    ("lengths", "sorted_already"),
    [
        ([5, 5, 5, 5, 2, 4, 3, 5], False),
        ([5, 4, 4, 3, 3, 2, 2, 1], True),
        ([3, 1, 2, 5, 4, 1, 2, 3], False),
    ],
)
def test_samples_in_an_order_of_their_own_are_not_mistaken(
    lengths: list[int], sorted_already: bool
) -> None:
    model = Function(sorted_by_length, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    engine = agree(model, squares, (torch.randn(8, 5, 4).double(), torch.tensor(lengths)))
    assert (engine == "hooks") == sorted_already


def unpadded(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    packed = self.inner(x[mask]).tanh()
    return self.head(torch.zeros_like(x).masked_scatter(mask[..., None], packed).sum(1))


def test_tokens_without_padding_are_not_mistaken_for_samples() -> None:
    model = Function(unpadded, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    whole = torch.randn(8, 6, 4).double(), torch.full((8,), 6)
    ragged = torch.randn(8, 6, 4).double(), torch.tensor([6, 6, 6, 6, 6, 2, 3, 5])
    agree(model, squares, ragged)
    assert agree(model, squares, [whole, ragged]) != "hooks"  # gone on with by another


def test_a_plan_of_one_time_step_or_one_sample_does_not_serve_more() -> None:
    model = Function(
        lambda s, x: s.o(s.m(x, x, x, need_weights=False)[0]),
        m=nn.MultiheadAttention(4, 2, batch_first=True),
        o=nn.Linear(4, 2),
    ).double()
    for shapes in ([(8, 1), (8, 7)], [(1, 7), (8, 7)], [(8, 5), (1, 7), (8, 7)]):
        batches = [(torch.randn(*shape, 4).double(),) for shape in shapes]
        assert agree(model, squares, batches) == "hooks"


def routed(self: Any, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 3, dtype=x.dtype)
    for expert, layer in enumerate((self.a, self.b)):
        mine = (x[:, 0] > 0) == bool(expert)
        out[mine] = layer(x[mine])
    return out


def test_experts_that_gather_their_samples_fall_to_another_engine() -> None:
    model = Function(routed, a=nn.Linear(4, 3), b=nn.Linear(4, 3)).double()
    x = torch.randn(8, 4).double()
    x[:, 0] = torch.tensor([1.0, 1, 1, 1, 1, -1, -1, 1])
    assert agree(model, squares, x) == "loop"


def test_falling_back_in_mid_stream_is_said() -> None:
    model = Function(unpadded, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    whole = torch.randn(8, 6, 4).double(), torch.full((8,), 6)
    ragged = torch.randn(8, 6, 4).double(), torch.tensor([6, 6, 6, 6, 6, 2, 3, 4])
    profile = gn.profile(model, squares, [whole, ragged], probes=2)
    assert profile.engine != "hooks"
    assert any("hooks cannot" in warning for warning in profile.warnings)
    with pytest.raises(gn.EngineError, match=r"no axis of their own|change from one evaluation"):
        gn.gradient_moments(model, squares, [whole, ragged], engine="hooks")


CONSTANTS = {
    "an embedding of constants": lambda s, x: x + s.e(torch.zeros(x.shape[:2], dtype=torch.long)),
    "copies by repeat": lambda s, x: torch.cat([s.w.repeat(len(x), 2, 1), x], 1),
    "copies by stack": lambda s, x: x + torch.stack([s.w] * len(x)),
    "copies by tile": lambda s, x: x * s.w.tile(len(x), 1, 1),
    "copies by indexing": lambda s, x: x * s.w[torch.zeros(len(x), dtype=torch.long), None],
    "copies by adding zeros": lambda s, x: x * (s.w[0] + torch.zeros(len(x), 1, 1)),
    "copies for every position": lambda s, x: x * s.w.expand(len(x), x.shape[1], -1),
    "not for samples, but four heads": lambda s, x: x * s.w[0].expand(4, -1).mean(0),
    "not for samples, but five": lambda s, x: x * s.w[0].expand(5, -1).sum(0),
    "a vector": lambda s, x: x @ s.w[0],
    "a block of matrices": lambda s, x: x @ s.w[:, :, None].expand(-1, -1, 4),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_what_is_made_of_parameters_for_every_sample_is_followed(name: str) -> None:
    model = Function(CONSTANTS[name], w=(1, 4), e=nn.Embedding(2, 4)).double()
    assert agree(model, squares, torch.randn(7, 3, 4).double()) == "hooks"


def test_views_that_overlap_are_added() -> None:
    model = Function(lambda s, x: x @ s.w.unfold(0, 4, 1).T, w=(7,)).double()
    assert agree(model, squares, torch.randn(6, 4).double()) == "hooks"


def test_an_empty_parameter_is_no_obstacle() -> None:
    model = Function(lambda s, x: s.a(x), a=nn.Linear(4, 2), w=(0, 3)).double()
    gradients = gn.per_sample_gradients(model, squares, torch.randn(6, 4).double(), engine="hooks")
    assert gradients["w"].shape == (6, 0, 3)


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "loop"])
@pytest.mark.parametrize("outside", [True, False])
def test_autocast_is_no_coupling(engine: str, outside: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.PReLU(64), nn.Linear(64, 3))
    x, y = torch.randn(9, 6), torch.randint(3, (9,))

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=not outside):
            outputs = model(batch[0])
        return F.cross_entropy(outputs.float(), batch[1], reduction="none")

    truth = oracles.dense(model, loss, (x, y), second=False).gradients
    with torch.autocast("cpu", torch.bfloat16, enabled=outside):
        norms = gn.per_sample_sq_norms(model, plain if outside else loss, (x, y), engine=engine)
    torch.testing.assert_close(norms, truth.double().square().sum(1), rtol=0.1, atol=0)


def plain(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


@pytest.mark.parametrize("mask", [True, False])
def test_bert_is_measured_at_the_price_of_a_gradient(mask: bool) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
    )
    model = BertForSequenceClassification(config).double().eval()
    batch = {"input_ids": torch.randint(11, (6, 5)), "labels": torch.randint(2, (6,))}
    if mask:
        batch["attention_mask"] = torch.ones(6, 5, dtype=torch.long)
        batch["attention_mask"][1, 3:] = 0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")

    assert agree(model, loss, batch) == "hooks"


PICKED = {
    "tensors": lambda x, order: x[order],
    "a list": lambda x, order: x[order.tolist()],
    "gather": lambda x, order: x.gather(0, order[:, None].expand_as(x)),
    "take_along_dim": lambda x, order: torch.take_along_dim(x, order[:, None], 0),
}


@pytest.mark.parametrize("how", PICKED)
def test_an_order_of_one_batch_is_not_taken_for_the_next(how: str) -> None:
    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        order = torch.argsort(lengths, stable=True)
        hidden = self.inner(PICKED[how](x, order)).tanh()
        return self.head(PICKED[how](hidden, torch.argsort(order)))

    model = Function(forward, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    bucketed = torch.randn(40, 4).double(), torch.full((40,), 3)
    swapped = torch.arange(40)
    swapped[[20, 21]] = swapped[[21, 20]]
    agree(model, squares, [bucketed, (torch.randn(40, 4).double(), swapped)])


def test_outputs_of_fewer_dimensions_get_a_plan_of_their_own() -> None:
    model = Function(lambda s, x: (x.transpose(0, 1).squeeze(0) * s.g).tanh(), g=(8,)).double()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch[0])
        outputs = outputs.transpose(0, 1) if outputs.ndim == 3 else outputs
        return outputs.flatten(1).pow(2).mul(torch.arange(1, len(outputs[0].flatten()) + 1)).sum(1)

    batches = [(torch.randn(9, 3, 8).double(),), (torch.randn(8, 1, 8).double(),)]
    assert agree(model, loss, batches) == "hooks"


@pytest.mark.parametrize("name", ["add_", "mul_", "sub_"])
def test_parameters_added_in_place_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        view = hidden[:, :2]
        getattr(view, name)(self.w)
        return self.head(hidden.tanh())

    model = Function(forward, inner=nn.Linear(4, 4), head=nn.Linear(4, 2), w=(2,)).double()
    assert agree(model, squares, torch.randn(6, 4).double()) == "hooks"


def test_uses_that_cancel_keep_their_digits() -> None:
    """The two branches of a siamese network see nearly the same: norms are never negative."""
    torch.manual_seed(0)
    model = Function(lambda s, a, b: s.f(a) - s.f(b), f=nn.Linear(64, 64))
    first = torch.randn(40, 64)
    batch = first, first + 1e-3 * torch.randn(40, 64)
    norms = gn.per_sample_sq_norms(model, squares, batch, engine="auto")
    exact = tuple(part.double() for part in batch)
    truth = oracles.dense(model.double(), squares, exact, second=False).gradients.square().sum(1)
    torch.testing.assert_close(norms, truth, rtol=0.02, atol=0)


@pytest.mark.parametrize("operation", ["linear", "derived", "einsum", "subtract"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_everywhere(operation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    forwards = {
        "linear": lambda s, x: F.linear(x, s.w),
        "derived": lambda s, x: F.linear(x, s.w * 1.0),
        "einsum": lambda s, x: torch.einsum("ni,oi->no", x, s.w),
        "subtract": lambda s, x: x - s.w[0],
    }
    model = Function(forwards[operation], w=(4, 4)).to(dtype)
    inputs = (1 + 0.05 * torch.randn(64, 4)).to(dtype)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().square().sum(1)

    moments = gn.gradient_moments(model, loss, inputs, engine="hooks")
    singles = oracles.dense(model, loss, inputs, second=False).gradients.double()
    spread = float(singles.var(0).sum())  # each rounded to half precision once
    assert float(moments.trace_cov) == pytest.approx(spread, rel=0.1)


def test_autocast_around_the_call_does_not_round_the_sums() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(16, 16), 1 + 0.03 * torch.randn(64, 5, 16)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().sum((1, 2))

    with torch.autocast("cpu", torch.bfloat16):
        moments = gn.gradient_moments(model, loss, inputs, engine="hooks")
    seen = inputs.bfloat16().double()  # what the operation saw
    spread = float(16 * seen.sum(1).var(0).sum())
    assert float(moments.trace_cov) == pytest.approx(spread, rel=1e-3)


def test_an_axis_that_fits_by_chance_is_not_taken() -> None:
    model = Function(lambda s, x: torch.einsum("nti,io->tno", x, s.w).transpose(0, 1), w=(4, 3))
    batches = [(torch.randn(n, 7, 4).double(),) for n in (9, 7)]
    agree(model.double(), squares, batches)


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_bags_with_padding_counted_from_the_end_and_empty_bags(mode: str) -> None:
    model = Function(
        lambda s, ids: F.embedding_bag(ids, s.w, mode=mode, padding_idx=-1), w=(5, 3)
    ).double()
    ids = torch.randint(5, (8, 4))
    ids[2] = 4  # nothing but padding
    assert agree(model, squares, ids) == "hooks"


def test_a_pass_that_fails_leaves_no_graph_behind() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            if len(grad) > 7:
                raise ValueError("broken")
            return grad

    model = nn.Linear(4, 3)
    objective = Objective(model, lambda m, x: Broken.apply(m(x)).square().sum(1))
    with objective.guard():
        engine = Hooks(objective)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                list(engine.summaries(torch.randn(9, 4), Wanted()))
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, BackwardPass)]


def test_a_pass_that_is_given_up_leaves_no_graph_behind() -> None:
    layers = {name: nn.Linear(4, 4) for name in "abcd"}
    batches = [(torch.randn(9, time, 4), torch.ones(9)) for time in (3, 2)]

    def unplanned(self: Any, x: Tensor, has: Tensor) -> Tensor:
        hidden = self.b(self.a(x)).tanh()
        return hidden if x.shape[1] == 3 else self.c(hidden)

    for forward in (changed_by_itself, unplanned):
        gn.gradient_moments(Function(forward, **layers), squares, batches, engine="hooks")
    gc.collect()
    assert not [item for item in gc.get_objects() if isinstance(item, BackwardPass)]


def test_an_input_that_is_changed_after_its_use_is_not_read_again() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        own = x.clone()
        chosen = torch.where(own > 0, own, self.p)
        return chosen * own.add_(1)

    model = Function(forward, p=(4,)).double()
    batch = torch.randn(9, 4).double()
    with pytest.raises(gn.EngineError, match="input of where is changed in place after its use"):
        gn.per_sample_sq_norms(model, squares, batch, engine="hooks")
    assert agree(model, squares, batch) == "functional"


def partly_silent(self: Any, x: Tensor, has: Tensor) -> Tensor:
    hidden = self.d(self.a(x).tanh())
    before = hidden.tanh()
    hidden.mul_(has[:, None, None])
    return self.b(before) + self.c(hidden.tanh())


def changed_by_itself(self: Any, x: Tensor, _has: Tensor) -> Tensor:
    hidden = self.d(self.a(x))
    hidden += hidden.tanh()
    return self.b(hidden) + self.c(hidden.sigmoid())


@pytest.mark.parametrize("forward", [partly_silent, changed_by_itself])
def test_a_view_that_is_changed_in_place_is_seen_before_and_after(forward: Any) -> None:
    layers = dict(zip("abcd", [nn.Linear(4, 4), *(nn.Linear(4, 4) for _ in range(3))], strict=True))
    model = Function(forward, **layers).double()
    has = torch.ones(40, dtype=torch.float64)
    has[torch.linspace(0, 39, 5).long()] = 0
    has[torch.linspace(0, 39, 7).long()] = 0
    assert agree(model, squares, (torch.randn(40, 3, 4).double(), has)) == "hooks"


def test_samples_put_back_in_place_are_not_mistaken() -> None:
    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        order = lengths.argsort(stable=True)
        hidden = self.a(x[order])
        hidden[order] = hidden.clone()
        return self.c(hidden.tanh())

    model = Function(forward, a=nn.Linear(4, 4), c=nn.Linear(4, 3)).double()
    x = torch.randn(2, 24, 4).double()
    batches = [(x[0], torch.ones(24).long()), (x[1], torch.randperm(24))]
    agree(model, squares, batches)


@pytest.mark.parametrize("broken", ["a.weight", "b.weight"])
def test_a_gradient_that_is_not_finite_is_blamed_on_its_own_parameter(broken: str) -> None:
    model = Function(lambda s, x: s.a(x) + s.b(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3)).double()
    twin = {"a.weight": model.a, "b.weight": model.b}[broken]
    twin.register_forward_hook(lambda m, i, o: (0 * o).sqrt())
    with pytest.raises(gn.LossError, match=f"gradient of parameter '{broken}' is not finite"):
        gn.per_sample_sq_norms(model, squares, torch.randn(9, 4).double(), engine="hooks")


class HandsOn(torch.autograd.Function):
    """Hands on no gradient at all once the batch says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, silent: Tensor) -> Tensor:
        ctx.silent = bool(silent.any())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (None if ctx.silent else grad), None


def test_hooks_of_the_users_on_activations_come_first() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.a(x)
        hidden.register_hook(lambda grad: grad.clamp(-1, 1))
        return hidden

    model = Function(forward, a=nn.Linear(4, 3)).double()
    x = torch.randn(50, 4).double()
    x[[3, 20, 33]] *= 1000  # clamped, and none of them is looked at for the plan
    assert agree(model, lambda m, batch: squares(m, batch) / 100, x) == "hooks"


def test_an_output_may_get_no_gradient() -> None:
    model = Function(
        lambda s, x, silent: s.b(x) + HandsOn.apply(s.a(x), silent),
        a=nn.Linear(4, 3),
        b=nn.Linear(4, 3),
    ).double()
    batches = [(torch.randn(9, 4).double(), torch.full((9,), silent)) for silent in (False, True)]
    assert agree(model, squares, batches) == "hooks"


CHANGING: dict[str, Any] = {
    "bias at times": lambda s, x, turn: torch.nn.functional.linear(x, s.w, *([s.b] * turn)),
    "weight and then bias": lambda s, x, turn: torch.nn.functional.layer_norm(
        x, (4,), *((s.p, None) if turn else (None, s.p))
    ),
    "another order": lambda s, x, turn: torch.mul(x, s.p) if turn else torch.mul(s.p, x),
    "one head at a time": lambda s, x, turn: [x @ s.w.T, x @ (s.v.T + 1)][turn],
}


@pytest.mark.parametrize("name", CHANGING)
def test_arguments_that_change_from_batch_to_batch_are_followed(name: str) -> None:
    def forward(self: Any, x: Tensor, which: Tensor) -> Tensor:
        return CHANGING[name](self, x, int(which[0]))

    model = Function(forward, w=(3, 4), v=(3, 4), b=(3,), p=(4,)).double()
    batches = [(torch.randn(9, 4).double(), torch.full((9,), i % 2)) for i in range(3)]
    assert agree(model, squares, batches) == "hooks"


@pytest.mark.parametrize("samples", [1, 2, 9])
def test_what_was_of_parameters_alone_until_samples_are_written_into_it(samples: int) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.p.repeat(len(x), 1)
        hidden += self.a(x)
        return self.b(hidden)

    model = Function(forward, p=(1, 3), a=nn.Linear(4, 3), b=nn.Linear(3, 2)).double()
    objective = Objective(model, squares)
    with objective.guard():
        engine = choose(objective, torch.randn(samples, 4).double())
        assert engine.name == "hooks"
        list(engine.summaries(torch.randn(samples, 4).double(), Wanted()))
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is BackwardPass]
    agree(model, squares, [(torch.randn(max(samples, 2), 4).double(),)] * 2)


@pytest.mark.parametrize("how", ["index_copy", "setitem", "index_put", "scatter"])
def test_samples_laid_out_by_data_are_looked_at_in_every_batch(how: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden, place = self.a(x).tanh(), x[:, 0].argsort().argsort()
        laid = torch.zeros_like(hidden)
        if how == "index_copy":
            laid = laid.index_copy(0, place, hidden)
        elif how == "index_put":
            laid = laid.index_put((place,), hidden)
        elif how == "scatter":
            laid = laid.scatter(0, place[:, None].expand_as(hidden), hidden)
        else:
            laid[place] = hidden
        return self.b(laid)[place]

    model = Function(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 3)).double()
    x = torch.randn(40, 4).double()
    x = x[x[:, 0].argsort()]
    x[[2, 3]] = x[[3, 2]]
    agree(model, squares, x)


def test_layer_norm_in_half_precision_is_normalised_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32)).bfloat16()
    x = torch.randn(8, 5, 32).bfloat16()
    seen: list[Tensor] = []
    model[0].register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    loss = lambda m, batch: m(batch).float().pow(3).sum((1, 2))  # noqa: E731
    norms = gn.per_sample_sq_norms(model, loss, x, engine="hooks", per_parameter=True)
    output = model(x)
    (delta,) = torch.autograd.grad(output.float().pow(3).sum(), output)
    normal = nn.functional.layer_norm(seen[-1].double(), (32,))
    truth = (delta.double() * normal).sum(1).square().sum(1)
    torch.testing.assert_close(norms["1.weight"].double(), truth, rtol=1e-5, atol=0)


def test_a_half_precision_parameter_without_a_part_in_the_first_batches() -> None:
    model = Function(lambda s, x, on: s.a(x) + on[0] * s.b(x), a=nn.Linear(8, 4), b=nn.Linear(8, 4))
    model = model.bfloat16()
    x = torch.randn(8, 16, 8).bfloat16()
    used = [(part, torch.full((16,), float(i > 0)).bfloat16()) for i, part in enumerate(x)]
    skip = Function(lambda s, x, on: s.a(x) + s.b(x) if on[0] else s.a(x), a=model.a, b=model.b)
    loss = lambda m, batch: m(*batch).float().square().sum(1)  # noqa: E731
    moments = gn.gradient_moments(skip, loss, used)
    engine = gn.gradient_moments(skip, loss, used, engine="loop")
    torch.testing.assert_close(
        moments.mean["b.weight"], engine.mean["b.weight"], rtol=5e-3, atol=5e-4
    )
