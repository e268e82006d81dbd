"""One call of a custom autograd Function, and its derivatives by differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import is_out_of_memory

FunctionClass = type[torch.autograd.Function]


class Part:
    """One call of a Function, as a function of the inputs that gradients are taken of."""

    def __init__(self, kind: Any, inputs: Sequence[Any]) -> None:
        self._kind, self._inputs = kind, inputs
        self.moves = [isinstance(t, Tensor) and t.requires_grad for t in inputs]
        self.moving: list[Tensor] = [t for t, at in zip(inputs, self.moves, strict=True) if at]
        self.dtype = self.moving[0].dtype if self.moving else torch.float64
        self.shorter = 1.0  # factor of the step
        with torch.no_grad():
            results = self._called(self.moving)
            self.outputs = [isinstance(o, Tensor) and o.is_floating_point() for o in results]
            if self._takes_float64(self._floating(results)):
                self.dtype = torch.float64

    def _called(self, moving: Sequence[Tensor]) -> tuple[Any, ...]:
        waiting, wide = iter(moving), self.dtype == torch.float64
        inputs = [
            next(waiting) if at else _widened(t) if wide else t
            for t, at in zip(self._inputs, self.moves, strict=True)
        ]
        results = self._kind.apply(*inputs)
        return results if isinstance(results, tuple) else (results,)

    def _floating(self, results: Sequence[Any]) -> list[Tensor]:
        return [o for o, at in zip(results, self.outputs, strict=True) if at]

    def _takes_float64(self, plain: list[Tensor]) -> bool:
        own, self.dtype = self.dtype, torch.float64
        try:
            wide = self.run([t.detach().double() for t in self.moving])
            pairs = zip(wide, plain, strict=True)
            return all(torch.allclose(w, p.double(), rtol=1e-2, atol=1e-4) for w, p in pairs)
        except Exception:  # of the user's code, whatever it is
            return False
        finally:
            self.dtype = own

    def run(self, moving: Sequence[Tensor]) -> list[Tensor]:
        """The outputs that are real numbers."""
        return self._floating(self._called(moving))

    def pull(
        self, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, twice: bool = False
    ) -> list[Tensor | None]:
        """Jᵀ(a)c, with its graph in c where `twice`."""
        with torch.enable_grad():
            own = [a.detach().to(self.dtype).requires_grad_() for a in inputs]
            outputs = self.run(own)
        pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
        return list(
            torch.autograd.grad(
                [o for o, _ in pairs],
                own,
                [c.to(o) for o, c in pairs],
                create_graph=twice,
                allow_unused=True,
            )
        )

    def push(
        self, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], along: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """The derivative of vᵀJᵀ(a)c with respect to c, None where torch has none."""
        own = [c.detach().requires_grad_() for c in cotangents]
        try:
            with torch.enable_grad():
                total = dot(self.pull(inputs, own, twice=True), along)
            if not total.requires_grad:
                return [None for _ in own]
            return list(torch.autograd.grad(total, own, allow_unused=True))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            return [None for _ in own]

    def step(self, along: Sequence[Tensor]) -> float:
        """h: the cube root of the resolution, in the size of the inputs."""
        largest, size = (
            max(float(t.detach().abs().max()) for t in ts if t.numel())
            for ts in (along, self.moving)
        )
        eps = torch.finfo(self.dtype).eps ** (1 / 3)
        return float(self.shorter * eps * max(size, 1.0) / largest) if largest else 0.0


def _widened(item: Any) -> Any:
    return item.double() if isinstance(item, Tensor) and item.is_floating_point() else item


class Pulled(torch.autograd.Function):
    """Jᵀ(a)c, whose derivatives are differences."""

    @staticmethod
    def forward(ctx: Any, part: Part, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.part = part
        ctx.save_for_backward(*tensors)
        inputs = tensors[: len(part.moving)]
        found = part.pull(inputs, tensors[len(part.moving) :])
        pairs = zip(inputs, found, strict=True)
        return tuple(torch.zeros_like(a) if g is None else g.to(a) for a, g in pairs)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> Any:
        part: Part = ctx.part
        tensors, count, step = ctx.saved_tensors, len(part.moving), part.step(along)
        inputs, cotangents = tensors[:count], tensors[count:]
        if not step:
            return (None, *map(torch.zeros_like, tensors))
        gradients, outputs = [], []
        for signed in (step, -step):
            # detached: of a product, only the derivative with respect to c is taken
            pairs = zip(inputs, along, strict=True)
            moved = [(a.to(part.dtype) + signed * v).detach() for a, v in pairs]
            gradients.append(Pulled.apply(part, *moved, *cotangents))  # type: ignore[no-untyped-call]
            with torch.no_grad():
                outputs.append(part.run(moved))
        curved, pushed = (
            [_gap(up, down) / (2 * step) for up, down in zip(*ends, strict=True)]
            for ends in (gradients, outputs)
        )
        exact = part.push(inputs, cotangents, along)
        pushed = [d if own is None else own for d, own in zip(pushed, exact, strict=True)]
        found = [d.to(t) for d, t in zip([*curved, *pushed], tensors, strict=True)]
        return (None, *found)


def pulled_back(kind: Any, inputs: Sequence[Any], cotangents: Sequence[Any]) -> tuple[Any, ...]:
    """Jᵀ(a)c for every input of a call, None for those that no gradient is taken of."""
    part = Part(kind, inputs)
    given = [c for c, at in zip(cotangents, part.outputs, strict=True) if at]
    pulled = iter(Pulled.apply(part, *part.moving, *given))  # type: ignore[no-untyped-call]
    return tuple(next(pulled) if at else None for at in part.moves)


def dot(pulled: Sequence[Tensor | None], along: Sequence[Tensor]) -> Tensor:
    """Σ pᵀv, where None is zero."""
    pairs = zip(pulled, along, strict=True)
    return torch.stack([(v.sum() * 0 if p is None else (p * v).sum()) for p, v in pairs]).sum()


def _gap(up: Tensor, down: Tensor) -> Tensor:
    """up - down, zero where that is rounding: h would make it large."""
    gap, eps = up - down, torch.finfo(up.dtype).eps
    return torch.where(gap.abs() > 8 * eps * (up.abs() + down.abs()), gap, 0.0)
