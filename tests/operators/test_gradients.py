"""The rows are the per-sample gradients."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from tests import oracles
from tests.cases import CASES, Case, named
from tests.dense import CLOSE, dense


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_rows_are_the_per_sample_gradients(case: Case) -> None:
    model, loss_fn, batch = case.build()
    rows = gn.PerSampleGradients(model, loss_fn, batch, micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch, second=False)
    assert rows.shape == truth.gradients.shape
    assert rows.T.shape == truth.gradients.T.shape
    assert rows.T.T is rows
    torch.testing.assert_close(dense(rows), truth.gradients, **CLOSE)
    torch.testing.assert_close(dense(rows.T), truth.gradients.T, **CLOSE)
