"""Second derivatives that the backward of a custom autograd Function hides.

For a Function o(a) with backward Jᵀ(a)c, torch differentiates the code of the backward pass. Where
that keeps what it computed before (p - y of a fused cross-entropy), or calls a kernel, the
dependence on a is lost, in silence or with an error. There

    ∂/∂a (vᵀJᵀ(a)c) = (Jᵀ(a + hv)c - Jᵀ(a - hv)c)/2h

takes its place, and where the backward cannot be differentiated at all,

    ∂/∂c (vᵀJᵀ(a)c) = Jv = (o(a + hv) - o(a - hv))/2h:

differences of this Function alone, in float64 where it takes float64. Kinks elsewhere in the model
are not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ..errors import is_out_of_memory
from .function_part import FunctionClass, Part, Pulled, dot, pulled_back
from .graph import nodes_of

CALLS = 4  # of one Function that are tried
AGREEMENT = {True: 1e-4, False: 3e-2}  # relative, in float64 and in lower precision


def custom_functions(losses: Tensor) -> list[FunctionClass]:
    """The classes of custom Functions in the graph of the losses."""
    nodes = (type(n) for n in nodes_of(losses) if isinstance(n, BackwardCFunction))
    return list(dict.fromkeys(kind._forward_cls for kind in nodes))  # type: ignore[attr-defined]


def hiding(kinds: Sequence[FunctionClass], losses: Callable[[], Tensor]) -> list[FunctionClass]:
    """Those of the Functions whose second derivatives are not those of their backward."""
    calls: dict[FunctionClass, list[Sequence[Any]]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        for kind, own in calls.items():
            stack.enter_context(_inputs_kept(kind, _into(own)))
        losses()
    return [kind for kind, own in calls.items() if any(_hides(kind, args) for args in own[:CALLS])]


def _into(own: list[Sequence[Any]]) -> Callable[[Any, Sequence[Any]], None]:
    return lambda _ctx, inputs: own.append(inputs)


@contextmanager
def differenced(kinds: Sequence[FunctionClass]) -> Iterator[None]:
    """These Functions have second derivatives by differences meanwhile."""
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(_differenced(kind))
        yield


@contextmanager
def _differenced(kind: FunctionClass) -> Iterator[None]:
    original = _original(kind)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return pulled_back(original, ctx.gradnoise_inputs, cotangents)

    def keep(ctx: Any, inputs: Sequence[Any]) -> None:
        ctx.gradnoise_inputs = inputs

    with _inputs_kept(kind, keep), _replaced(kind, "backward", staticmethod(backward)):
        yield


def _original(kind: FunctionClass) -> FunctionClass:
    """The Function as it is, whatever is put in its place later."""
    names = ("forward", "setup_context", "backward", "vjp")
    own = {n: staticmethod(getattr(kind, n)) for n in names if hasattr(kind, n)}
    if kind.setup_context is torch.autograd.Function.setup_context:
        del own["setup_context"]
    return type(kind.__name__, (kind,), own)


@contextmanager
def _inputs_kept(kind: FunctionClass, keep: Callable[[Any, Sequence[Any]], None]) -> Iterator[None]:
    """`keep(ctx, inputs)` is called with the inputs of every call."""
    if kind.setup_context is not torch.autograd.Function.setup_context:
        own = kind.setup_context

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            keep(ctx, inputs)
            own(ctx, inputs, output)

        with _replaced(kind, "setup_context", staticmethod(setup_context)):
            yield
        return
    forward = kind.forward

    def kept(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        keep(ctx, args)
        return forward(ctx, *args, **kwargs)

    with _replaced(kind, "forward", staticmethod(kept)):
        yield


@contextmanager
def _replaced(kind: type, name: str, value: Any) -> Iterator[None]:
    """An attribute of a class, put back as it was found."""
    own = vars(kind).get(name)
    setattr(kind, name, value)
    try:
        yield
    finally:
        if own is None:  # it was inherited
            delattr(kind, name)
        else:
            setattr(kind, name, own)


def _hides(kind: FunctionClass, inputs: Sequence[Any]) -> bool:
    """Whether products through a call, by torch, are not those by differences."""
    part = Part(_original(kind), inputs)
    if not part.moving:
        return False
    source = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=source, dtype=part.dtype).to(like.device)

    inner = [t.detach().to(part.dtype).requires_grad_() for t in part.moving]
    outputs = part.run(inner)
    if not all(map(torch.equal, outputs, part.run(inner))):  # it draws random numbers
        return False
    cotangents = [random(o).requires_grad_() for o in outputs]
    along = [random(t) for t in inner]
    leaves = [*inner, *cotangents]
    differences = []
    for shorter in (1.0, 0.5):
        part.shorter = shorter
        pulled = Pulled.apply(part, *leaves)  # type: ignore[no-untyped-call]
        differences.append(_products(pulled, along, leaves))
    try:
        pulled = torch.autograd.grad(
            outputs, inner, cotangents, create_graph=True, allow_unused=True
        )
        found = _products(pulled, along, leaves)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return True
    return any(map(_differ, found, *differences))


def _products(
    pulled: Sequence[Tensor | None], along: Sequence[Tensor], leaves: Sequence[Tensor]
) -> list[Tensor]:
    """The derivatives of vᵀJᵀ(a)c with respect to a and c."""
    total = dot(pulled, along)
    if not total.requires_grad:
        return list(map(torch.zeros_like, leaves))
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)]


def _differ(found: Tensor, whole: Tensor, half: Tensor) -> bool:
    """Where two steps agree, so that no kink lies between; they do not agree at one."""
    tolerance = AGREEMENT[whole.dtype == torch.float64] * float(whole.abs().max().clamp(min=1e-12))
    smooth = (whole - half).abs() <= tolerance
    return bool(((found - whole).abs() > 2 * tolerance)[smooth].any())
