"""Parameters with memory in common are refused; memory side by side is fine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.memory import entries, refuse_common

CPU = torch.device("cpu")


WHOLE = torch.arange(24.0)
TIED = {
    "the same": (WHOLE[:4], WHOLE[:4]),
    "transposed": (WHOLE[:6].view(2, 3), WHOLE[:6].view(2, 3).T),
    "overlapping slices": (WHOLE[:4], WHOLE[3:8]),
    "a slice of columns": (WHOLE.view(6, 4), WHOLE.view(6, 4)[:, ::3]),
    "crossing": (WHOLE.view(6, 4)[:, 1], WHOLE.view(6, 4)[2]),
    "a part within": (WHOLE[::2], WHOLE[20:23]),
}
APART = {
    "slices of one vector": torch.split(WHOLE, [5, 1, 18]),
    "interleaved": (WHOLE[::2], WHOLE[1::2]),
    "columns": WHOLE.view(6, 4).unbind(1),
    "nothing": (WHOLE[:0], WHOLE[:0], WHOLE),
    "none at all": (torch.ones(3, device="meta"), torch.ones(3, device="meta")),
}


@pytest.mark.parametrize("name", TIED)
def test_parameters_tied_through_their_memory_are_refused(name: str) -> None:
    model = nn.ParameterDict({n: nn.Parameter(t) for n, t in zip("ab", TIED[name], strict=True)})
    model["c"] = nn.Parameter(torch.ones(2))
    with pytest.raises(gn.ModelError, match=r"'(a' and 'b|b' and 'a)' lie in the same memory"):
        refuse_common(dict(model.named_parameters()))


@pytest.mark.parametrize("name", APART)
def test_parameters_that_share_memory_and_no_entry_are_fine(name: str) -> None:
    refuse_common({str(i): nn.Parameter(t) for i, t in enumerate(APART[name])})


@pytest.mark.parametrize("name", TIED)
def test_a_model_of_tied_parameters_cannot_be_measured(name: str) -> None:
    model = nn.ParameterList(nn.Parameter(t) for t in TIED[name])
    with pytest.raises(gn.ModelError, match=r"Use '.' itself in both places"):
        gn.profile(model, lambda m, x: x[:, 0] * sum(p.sum() for p in m), torch.ones(3, 1))


def test_positions_are_those_of_the_storage() -> None:
    storage = torch.arange(60)
    views = [storage, storage.view(3, 4, 5).permute(2, 0, 1)[1:, ::2], storage.view(6, 10).T[3]]
    for view in (*views, storage[:0], storage[7]):
        found = entries(view.shape, view.stride(), view.storage_offset(), CPU)
        assert found.tolist() == view.reshape(-1).tolist()
    assert entries((3,), (0,), 4, CPU).tolist() == [4, 4, 4]  # expanded
