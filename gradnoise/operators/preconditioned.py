"""The curvature that decides whether the steps of an optimizer are stable."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import OperatorError
from ..linalg.operator import Operator
from ..problem.preconditioner import Preconditioner
from ..problem.state.wrappers import bare_optimizer
from ..tensors.space import Space
from .of_model import ModelOperator


class Decayed(Operator):
    """A + E with the decoupled weight decay E, for stability; see `Preconditioned`.

    E acts on the parameters and not through the gradient: it is a part of λ but of no noise scale.
    """

    symmetric = True

    def __init__(self, operator: ModelOperator, preconditioner: Preconditioner) -> None:
        self._operator, self._preconditioner = operator, preconditioner
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.parameters, self.rows_are_parameters = operator.parameters, True

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def space(self) -> Space:
        return self._operator.space

    def products(self, block: Tensor) -> Tensor:
        return self._operator.products(block) + self._preconditioner.decoupled(block)


class Preconditioned(Decayed):
    """P^-½(A + D)P^-½ + E with P read from a torch optimizer's state, shape (P, P), symmetric.

    It has the eigenvalues of P⁻¹(A + D) + E, which decide the stability of the optimizer's steps
    (Cohen et al. 2022, arXiv:2207.14484).

    | optimizer | diagonal of P | weight decay c |
    |---|---|---|
    | SGD | 1 | D = c |
    | Adam, NAdam | √(v/(1 - β₂ᵗ)) + eps; amsgrad: v the largest so far | D = c |
    | AdamW, decoupled | the same | E = c |
    | RMSprop | √v + eps; centred: v minus the squared mean | D = c |
    | Adagrad | (√s + eps)(1 + t·lr_decay), s the sum of squares, t the steps so far | D = c |
    | Adafactor | √V/max(eps₂, RMS(w)), V = rcᵀ/mean(r) of a matrix | E = c |

    A group with another learning rate ε_g than the first group's ε has P ε/ε_g and E ε_g/ε: all
    is in units of the first learning rate. Adafactor's rate is 1/√t at most: above that, P is
    larger in proportion; its clipping of a step to RMS d is left out.

    Args:
        operator: a symmetric operator of a model: `Hessian`, `GaussNewton`.
        optimizer: a torch optimizer over its parameters that has taken a step. Its state is read
            at construction: build the operator again after more steps.

    Raises:
        ArgumentError: another optimizer, no step taken, a parameter it does not hold,
            `maximize`, or a first learning rate of 0 when another is not.
        OperatorError: not an operator of a model that is square in its parameters.
        ShardedError: Adafactor, where one layer is gathered at a time.
    """

    def __init__(self, operator: ModelOperator, optimizer: torch.optim.Optimizer) -> None:
        if not (isinstance(operator, ModelOperator) and operator.rows_are_parameters):
            raise OperatorError(
                f"`operator` must be a Hessian or GaussNewton of a model; got "
                f"{type(operator).__name__}. Restrict, scale or add after preconditioning"
            )
        plain = operator.problem.objective.plain
        optimizer = plain.optimizer(bare_optimizer(optimizer))
        super().__init__(operator, Preconditioner.of(optimizer, plain.registered))

    def products(self, block: Tensor) -> Tensor:
        inner = self._preconditioner.around(self._operator.products, block)
        return inner + self._preconditioner.decoupled(block)


def uniform_decay(operator: ModelOperator) -> float | None:
    """E where it is a multiple of the identity, 0 where there is none, and else None."""
    preconditioner = operator.problem.objective.preconditioner
    if preconditioner is None or not preconditioner.is_decayed:
        return 0.0
    decays = set(preconditioner.outside.values())
    return decays.pop() if len(decays) == 1 else None


def with_decay(operator: ModelOperator) -> Operator:
    """A + E, or A where there is no decoupled weight decay."""
    preconditioner = operator.problem.objective.preconditioner
    if preconditioner is None or not preconditioner.is_decayed:
        return operator
    return Decayed(operator, preconditioner)
