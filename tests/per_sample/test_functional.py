"""torch.func: chunks of samples within the memory budget."""

from __future__ import annotations

import pytest
import torch

from gradnoise.per_sample.functional import Functional
from gradnoise.problem.objective import Objective
from tests.cases import CASES, SAMPLES


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_chunks_within_the_memory_budget_give_the_same_numbers(chunk: int) -> None:
    model, loss_fn, batch = CASES[0].build()
    objective = Objective(model, loss_fn)
    engine = Functional(objective, memory_budget=4 * chunk * 8 * objective.size)
    assert engine.chunk_size == chunk
    with objective.guard():
        chunks = list(engine.chunks(batch))
        (whole,) = Functional(objective).chunks(batch)
    assert max(len(c.losses) for c in chunks) == min(chunk, SAMPLES)
    joined = torch.cat([c.gradients["0.weight"] for c in chunks])
    torch.testing.assert_close(joined, whole.gradients["0.weight"], rtol=1e-12, atol=1e-15)
