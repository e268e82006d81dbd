"""`torch.func`: the gradient of one sample, vectorised over as many samples as memory allows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from ..errors import EngineError
from ..problem.objective import Bound, Objective, check_finite
from ..problem.state.guard import attributes
from ..tensors.trees import Batch, TensorDict, rebuild, sample_leaves, split
from .contract.engine import COPIES, MEMORY_BUDGET, Engine
from .contract.summary import Chunk


class Functional(Engine):
    """`vmap(grad)` over chunks of samples.

    Args:
        objective, eps: as of `Engine`.
        memory_budget: bytes that the per-sample gradients of one chunk may take.
    """

    name = "functional"

    def __init__(
        self, objective: Objective, eps: float = 0.0, *, memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super().__init__(objective, eps)
        self._bound = Bound(objective.model, objective.loss_fn)
        self.chunk_size = max(1, memory_budget // (COPIES * objective.sample_bytes))

    def prepare(self, _batch: Batch) -> None:
        if self.objective.unit.is_replayed:
            raise EngineError("random losses are evaluated in whole micro-batches")

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        yield from map(self._chunk, split(batch, self.chunk_size))

    def _chunk(self, batch: Batch) -> Chunk:
        leaves = sample_leaves(batch)
        parameters = {name: p.detach() for name, p in self.objective.parameters.items()}

        def loss(values: TensorDict, sample: list[Tensor]) -> Tensor:
            alone = rebuild(batch, [leaf.unsqueeze(0) for leaf in sample])
            named = {f"model.{name}": value for name, value in values.items()}
            return functional_call(self._bound, named, (alone,)).sum()  # type: ignore[no-any-return]

        # vmap warns where it falls back to a loop over samples
        with warnings.catch_warnings(), attributes(self.objective.model):
            warnings.filterwarnings("ignore", message="There is a performance drop")
            gradients, losses = vmap(grad_and_value(loss), in_dims=(None, 0))(parameters, leaves)
        check_finite(losses)
        self.objective.work.forward += len(losses)
        self.objective.work.differentiated(len(losses))
        return Chunk(losses.detach(), gradients)
