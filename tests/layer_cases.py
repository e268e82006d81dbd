"""One small problem for every kind of layer and every way of using a parameter, float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.cases import SAMPLES, Case

HOOKS = ("hooks",)
ALL = ("hooks", "functional")


def squares(model: nn.Module, batch: Any) -> Tensor:
    """A loss that every output entry takes part in, with slopes that differ."""
    outputs = model(*batch) if isinstance(batch, tuple) else model(batch)
    flat = outputs.flatten(1)
    return (flat + torch.linspace(0.1, 1, flat.shape[1], dtype=flat.dtype)).pow(2).sum(1)


torch.manual_seed(0)  # some layers of the table are made here, before any test


def numbers(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(SAMPLES, *shape, dtype=torch.float64)


def ids(*shape: int, high: int = 5) -> Callable[[], Tensor]:
    return lambda: torch.randint(high, (SAMPLES, *shape))


def layer(
    name: str, make: Callable[[], nn.Module], batch: Callable[[], Any], engines: Any = ALL
) -> Case:
    return Case(name, make, squares, batch, engines)


class Function(nn.Module):
    """Any forward, with parameters of given shapes on the root."""

    def __init__(self, forward: Callable[..., Tensor], **shapes: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, shape in shapes.items():
            part = shape if isinstance(shape, nn.Module) else nn.Parameter(torch.randn(shape))
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(self, *inputs)


def function(forward: Callable[..., Tensor], **shapes: Any) -> Callable[[], nn.Module]:
    return lambda: Function(forward, **shapes)


def first(module: nn.Module, pick: Callable[[Any], Tensor] = lambda out: out[0]) -> nn.Module:
    """A module whose output is part of a tuple."""
    return Function(lambda self, *x: pick(self.inner(*x)), inner=module)


def attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Function(
        lambda self, q, kv: self.inner(q, kv, kv, need_weights=False)[0],
        inner=nn.MultiheadAttention(4, 2, batch_first=True, **options),
    )


def time_first(self: Any, x: Tensor) -> Tensor:
    """(n, T, d) handled as (T, n, d) and as (T·n, d)."""
    x = self.a(x.transpose(0, 1)).tanh()
    return self.b(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1)


def hand_written_norm(self: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * self.w + self.b


def class_token(self: Any, x: Tensor) -> Tensor:
    x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos[:, : x.shape[1] + 1]
    return self.head(x.tanh())


def relative_bias(self: Any, x: Tensor) -> Tensor:
    q, k, v = self.qkv(x).reshape(len(x), -1, 3, 2, 2).permute(2, 0, 3, 1, 4)
    bias = self.table[torch.arange(3)[:, None] - torch.arange(3) + 2].permute(2, 0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def tied_language_model(self: Any, tokens: Tensor) -> Tensor:
    hidden = self.emb(tokens) + self.pos(torch.arange(tokens.shape[1]))
    return F.linear(hidden.tanh(), self.emb.weight)


class Double(torch.autograd.Function):
    """A custom function of inputs and a weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return 2 * x @ w

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return 2 * grad @ w.T, 2 * x.transpose(-1, -2) @ grad


def input_gradients(self: Any, x: Tensor) -> Tensor:
    return self.b(self.a(x).requires_grad_()).tanh()


def checkpointed(self: Any, x: Tensor) -> Tensor:
    inner = torch.utils.checkpoint.checkpoint(self.a, x, use_reentrant=False)
    return torch.utils.checkpoint.checkpoint(self.b, inner.tanh(), use_reentrant=False)


def stochastic_eval() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


def residual(self: Any, x: Tensor) -> Tensor:
    x = x + self.a(F.relu(x))
    x += self.b(x.tanh())
    return x + torch.where(x > 0, self.a(x), self.c(x))


def changed_in_place(self: Any, x: Tensor) -> Tensor:
    """Outputs of (n, T, d) with graphs of their own, as views and not."""
    h = self.b(self.a(x).tanh()).relu_()
    h = self.c(h)
    h += h.tanh()
    h = F.linear(h, self.d)
    h[..., :2].mul_(2)
    return h


def unpadded(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    packed = self.inner(x[mask]).tanh()
    return self.head(torch.zeros_like(x).masked_scatter(mask[..., None], packed).sum(1))


def changed_by_itself(self: Any, x: Tensor, _has: Tensor) -> Tensor:
    hidden = self.d(self.a(x))
    hidden += hidden.tanh()
    return self.b(hidden) + self.c(hidden.sigmoid())


def mixture(self: Any, x: Tensor) -> Tensor:
    gate = self.gate(x).softmax(-1)
    experts = torch.stack([self.a(x), self.b(x)], dim=1)
    return torch.einsum("nk,nkd->nd", gate, experts)


LAYERS = (
    layer("linear", lambda: nn.Linear(4, 3), numbers(4)),
    layer("linear without bias", lambda: nn.Linear(4, 3, bias=False), numbers(4)),
    layer("linear on sequences", lambda: nn.Linear(4, 3), numbers(5, 4)),
    layer("linear on short sequences: Gram", lambda: nn.Linear(16, 16), numbers(2, 16)),
    layer("linear on grids", lambda: nn.Linear(4, 3), numbers(2, 3, 4)),
    layer("bilinear", lambda: nn.Bilinear(3, 2, 4), lambda: (numbers(3)(), numbers(2)())),
    layer("conv1d strided, dilated", lambda: nn.Conv1d(2, 3, 3, 2, 1, 2), numbers(2, 9)),
    layer("conv2d", lambda: nn.Conv2d(2, 3, 3, padding=1), numbers(2, 5, 5)),
    layer("conv2d without bias", lambda: nn.Conv2d(2, 3, (3, 2), bias=False), numbers(2, 5, 5)),
    layer("conv2d grouped", lambda: nn.Conv2d(4, 6, 3, groups=2), numbers(4, 5, 5)),
    layer("conv2d depthwise", lambda: nn.Conv2d(3, 3, 3, groups=3, padding=1), numbers(3, 4, 4)),
    layer("conv2d same, even kernel", lambda: nn.Conv2d(2, 3, 4, padding="same"), numbers(2, 5, 5)),
    layer("conv2d valid", lambda: nn.Conv2d(2, 3, 2, padding="valid"), numbers(2, 4, 4)),
    layer(
        "conv2d circular",
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        numbers(2, 4, 4),
    ),
    layer("conv2d, wide window", lambda: nn.Conv2d(8, 3, 3), numbers(8, 6, 6)),
    layer("conv2d, few positions: Gram", lambda: nn.Conv2d(16, 32, 3), numbers(16, 3, 3)),
    layer("conv3d", lambda: nn.Conv3d(2, 3, 2, padding=1), numbers(2, 3, 3, 3)),
    layer(
        "conv on frames",
        function(lambda s, x: s.c(x.flatten(0, 1)).unflatten(0, x.shape[:2]), c=nn.Conv2d(2, 3, 2)),
        numbers(3, 2, 4, 4),
    ),
    layer("transposed conv1d", lambda: nn.ConvTranspose1d(2, 3, 3, 2, 1), numbers(2, 4)),
    layer(
        "transposed conv2d grouped, dilated",
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2),
        numbers(4, 3, 3),
    ),
    layer("transposed conv3d", lambda: nn.ConvTranspose3d(2, 3, 2, 2), numbers(2, 2, 2, 2)),
    layer("embedding", lambda: nn.Embedding(5, 3), ids(4)),
    layer("embedding with padding", lambda: nn.Embedding(5, 3, padding_idx=2), ids(4)),
    layer("embedding of grids", lambda: nn.Embedding(5, 3), ids(2, 3)),
    layer("embedding bag, mean", lambda: nn.EmbeddingBag(5, 3), ids(4)),
    layer(
        "embedding bag, sum with padding",
        lambda: nn.EmbeddingBag(5, 3, mode="sum", padding_idx=1),
        ids(4),
    ),
    layer("embedding bag, max", lambda: nn.EmbeddingBag(5, 3, mode="max"), ids(4)),
    layer("layer norm", lambda: nn.LayerNorm(4), numbers(3, 4)),
    layer("layer norm of two dimensions", lambda: nn.LayerNorm((3, 4)), numbers(2, 3, 4)),
    layer("layer norm without bias", lambda: nn.LayerNorm(4, bias=False), numbers(4)),
    layer("RMS norm", lambda: nn.RMSNorm(4), numbers(3, 4)),
    layer("group norm", lambda: nn.GroupNorm(2, 4), numbers(4, 3, 3)),
    layer("instance norm", lambda: nn.InstanceNorm2d(3, affine=True), numbers(3, 4, 4)),
    layer(
        "instance norm with running statistics",
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval(),
        numbers(3, 4),
    ),
    layer("batch norm in eval mode", lambda: nn.BatchNorm2d(3).eval(), numbers(3, 2, 2)),
    layer("PReLU", lambda: nn.PReLU(3), numbers(3, 4)),
    layer(
        "self-attention, time first",
        function(
            lambda s, x: s.m(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1))[0].transpose(
                0, 1
            ),
            m=nn.MultiheadAttention(4, 2),
        ),
        numbers(3, 4),
    ),
    layer("cross-attention", attention(), lambda: (numbers(3, 4)(), numbers(2, 4)())),
    layer(
        "cross-attention of other widths",
        attention(kdim=3, vdim=3),
        lambda: (numbers(3, 4)(), numbers(2, 3)()),
    ),
    layer(
        "attention with learned keys",
        attention(add_bias_kv=True),
        lambda: (numbers(3, 4)(), numbers(2, 4)()),
    ),
    layer(
        "transformer layer",
        lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        numbers(3, 4),
    ),
    layer("LSTM", lambda: first(nn.LSTM(3, 2, batch_first=True)), numbers(4, 3), HOOKS),
    layer(
        "LSTM, two layers, both directions",
        lambda: first(nn.LSTM(3, 2, 2, bidirectional=True, batch_first=True)),
        numbers(4, 3),
        HOOKS,
    ),
    layer(
        "LSTM with projection, without bias",
        lambda: first(nn.LSTM(3, 4, proj_size=2, bias=False, batch_first=True)),
        numbers(4, 3),
        HOOKS,
    ),
    layer("GRU", lambda: first(nn.GRU(3, 2, batch_first=True)), numbers(4, 3), HOOKS),
    layer(
        "last state of a time-first RNN",
        function(lambda s, x: s.r(x.transpose(0, 1))[1][0], r=nn.RNN(3, 2, nonlinearity="relu")),
        numbers(4, 3),
        HOOKS,
    ),
    layer(
        "GRU with a learned initial state",
        function(
            lambda s, x: s.r(x, s.h.expand(-1, len(x), -1).contiguous())[0],
            r=nn.GRU(3, 2, batch_first=True),
            h=(1, 1, 2),
        ),
        numbers(4, 3),
        HOOKS,
    ),
    layer("LSTM cell", lambda: first(nn.LSTMCell(3, 2), lambda s: s[0] + s[1]), numbers(3), HOOKS),
    layer("GRU cell", lambda: nn.GRUCell(3, 2), numbers(3), HOOKS),
    layer("RNN cell", lambda: nn.RNNCell(3, 2), numbers(3), HOOKS),
    layer(
        "called three times on sequences",
        function(lambda s, x: s.a(s.a(s.a(x).tanh()).tanh()), a=nn.Linear(4, 4)),
        numbers(3, 4),
    ),
    layer(
        "convolution called twice",
        function(lambda s, x: s.c(s.c(x).tanh()), c=nn.Conv2d(2, 2, 3, padding=1)),
        numbers(2, 4, 4),
    ),
    layer(
        "embedding tied to the head, positions",
        function(tied_language_model, emb=nn.Embedding(5, 3), pos=nn.Embedding(6, 3)),
        ids(4),
    ),
    layer("transposed weight", function(lambda s, x: x @ s.w.T, w=(3, 4)), numbers(5, 4)),
    layer(
        "encoder and its transpose",
        function(lambda s, x: F.linear(F.linear(x, s.w).tanh(), s.w.t()), w=(3, 4)),
        numbers(4),
    ),
    layer(
        "slices of one weight",
        function(lambda s, x: F.linear(x, s.w[:2]).tanh() * F.linear(x, s.w[2:]), w=(4, 3)),
        numbers(2, 3),
    ),
    layer(
        "overlapping slices",
        function(lambda s, x: F.linear(x, s.w[:3]).tanh() * F.linear(x, s.w[1:]), w=(4, 3)),
        numbers(3),
    ),
    layer("weight norm", lambda: parametrizations.weight_norm(nn.Linear(4, 3)), numbers(2, 4)),
    layer("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4)), numbers(4)),
    layer(
        "low-rank adapter on a frozen weight",
        function(
            lambda s, x: s.f(x) + x @ s.a @ s.b,
            f=nn.Linear(4, 3).requires_grad_(False),
            a=(4, 2),
            b=(2, 3),
        ),
        numbers(2, 4),
    ),
    layer(
        "low-rank product of parameters",
        function(lambda s, x: F.linear(x, s.a @ s.b), a=(3, 2), b=(2, 4)),
        numbers(2, 4),
    ),
    layer(
        "masked weight",
        function(lambda s, x: F.linear(x, s.w * torch.eye(3, 4, dtype=x.dtype)), w=(3, 4)),
        numbers(4),
    ),
    layer(
        "addmm",
        function(lambda s, x: torch.addmm(s.b, x, s.w, alpha=2), b=(3,), w=(4, 3)),
        numbers(4),
    ),
    layer(
        "einsum",
        function(lambda s, x: torch.einsum("nti,io->nto", x, s.w), w=(4, 3)),
        numbers(2, 4),
    ),
    layer("matrix of a batch", function(lambda s, x: s.w @ x, w=(3, 4)), numbers(4, 2)),
    layer("layer scale", function(lambda s, x: x * s.g + s.b, g=(4,), b=()), numbers(3, 4)),
    layer("temperature", function(lambda s, x: x / s.t.exp(), t=()), numbers(3)),
    layer("norm by hand", function(hand_written_norm, w=(4,), b=(4,)), numbers(3, 4)),
    layer(
        "one vector as weight and bias",
        function(lambda s, x: F.layer_norm(x, (4,), s.w, s.w), w=(4,)),
        numbers(3, 4),
    ),
    layer(
        "class token and positions",
        function(class_token, cls=(1, 1, 4), pos=(1, 6, 4), head=nn.Linear(4, 2)),
        numbers(3, 4),
    ),
    layer(
        "relative position bias",
        function(relative_bias, qkv=nn.Linear(4, 12), table=(5, 2)),
        numbers(3, 4),
    ),
    layer(
        "time first, then flattened",
        function(time_first, a=nn.Linear(4, 3), b=nn.Linear(3, 2)),
        numbers(3, 4),
    ),
    layer(
        "as many positions as samples",
        function(time_first, a=nn.Linear(4, 3), b=nn.Linear(3, 2)),
        numbers(SAMPLES, 4),
    ),
    layer(
        "residual, in place, branches",
        function(residual, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4)),
        numbers(4),
    ),
    layer(
        "mixture of experts",
        function(mixture, gate=nn.Linear(4, 2), a=nn.Linear(4, 3), b=nn.Linear(4, 3)),
        numbers(4),
    ),
    layer("dropout in eval mode", stochastic_eval, numbers(4)),
    layer(
        "part of the weight frozen",
        function(lambda s, x: F.linear(x, torch.cat([s.a.detach(), s.b])), a=(2, 4), b=(1, 4)),
        numbers(4),
    ),
    layer(
        "penalty on weights",
        function(lambda s, x: F.linear(x, s.w) + s.w.pow(2).sum(), w=(3, 4)),
        numbers(4),
    ),
    layer(
        "custom autograd function",
        function(lambda s, x: Double.apply(x, s.w), w=(4, 3)),
        numbers(4),
        ("functional",),
    ),
    layer(
        "custom function beside layers",
        function(lambda s, x: Double.apply(s.a(x), s.w), a=nn.Linear(4, 4), w=(4, 3)),
        numbers(4),
        ("functional",),
    ),
    layer(
        "scale in place of activations",
        function(lambda s, x: s.a(x).relu_().mul(s.g), a=nn.Linear(4, 3), g=(3,)),
        numbers(4),
    ),
    layer(
        "outputs behind a layer, changed in place",
        function(
            changed_in_place, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4), d=(3, 4)
        ),
        numbers(3, 4),
    ),
    layer(
        "inputs that require a gradient",
        function(lambda s, x: s.a(x.detach().requires_grad_()), a=nn.Linear(4, 3)),
        numbers(4),
        ("hooks",),
    ),
    layer(
        "a frozen layer whose output requires a gradient",
        function(input_gradients, a=nn.Linear(4, 4).requires_grad_(False), b=nn.Linear(4, 3)),
        numbers(4),
        ("hooks",),
    ),
    layer(
        "checkpointed",
        function(
            checkpointed,
            a=nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU()),
            b=nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
        ),
        numbers(4),
    ),
)
