"""Rules of single operations: what they refuse, and their digits in half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.hooks.layout import Layout
from gradnoise.per_sample.hooks.rules import At, add
from tests.cases import SAMPLES, features
from tests.engines import summary
from tests.layer_cases import ids, squares


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Embedding(5, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.EmbeddingBag(5, 3, scale_grad_by_freq=True, mode="sum"), "scale_grad_by_freq"),
    ],
)
def test_tables_that_couple_samples_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(gn.EngineError, match=message):
        summary(model.double(), squares, ids(4)())


def test_a_parameter_with_an_entry_for_every_sample_is_refused() -> None:
    at, delta = At(Layout(0), SAMPLES, torch.float64), features()
    with pytest.raises(gn.EngineError, match="entries of its own for every sample"):
        add(at, delta, features(), torch.zeros(SAMPLES, 4))["other"]()


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
