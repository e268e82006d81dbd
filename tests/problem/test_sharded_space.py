"""Vectors of which each rank has a part."""

from __future__ import annotations

import pytest
import torch

from tests.launching import Launched

SAID = {
    "kept": "ShardedError: hvp='kept' needs whole parameters: measure with gather='model'",
    "gauss-newton": "ShardedError: the Gauss-Newton matrix needs whole parameters",
    "block": "OperatorError: a block needs whole vectors, and ranks hold parts of them",
    "SciPy": "OperatorError: SciPy needs whole vectors",
    "trace": "OperatorError: this estimator needs whole vectors",
    "short": "takes vectors of length 227 (",
    "budget": "holds 4 vectors of",
    "short on one": "OperatorError: an operator of shape (227, 227) takes vectors of length 227 (",
    "kinks": "OperatorError: products with the operator are uncertain by ",
    "casts": "CurvatureError: the MixedPrecisionPolicy of fully_shard computes in torch.bfloat16",
    "other rates": "settings of the optimizer of rank 1 are not those of rank 0, the first of them",
}


def test_what_is_computed_from_parts_is_that_of_one_process(results_of: Launched) -> None:
    first, second = results_of(2, "vectors")
    assert first["width"][0] + second["width"][0] == 227
    assert first["width"][1] == second["width"][1] == max(first["width"][0], second["width"][0])
    for found in (first, second):
        torch.testing.assert_close(found["drawn"], found["drawn alone"], rtol=1e-14, atol=0)
        for name in ("product", "product of plain tensors", "product of the model by dicts"):
            torch.testing.assert_close(
                found[name], found["product alone"], rtol=1e-6, atol=1e-8, check_dtype=False
            )
        expected = torch.eye(2).double().flatten()  # one of three depended on another
        torch.testing.assert_close(found["overlaps"], expected, rtol=0, atol=1e-12)
        assert found["density"] == pytest.approx(found["density alone"], rel=1e-6)
        *values, products = found["both ends alone"]
        assert found["both ends"] == pytest.approx([*values, products], rel=1e-6)
        for name in ("restarted", "from a start"):
            assert found[name][0] == pytest.approx(values[0], rel=0.01)
        for name in ("both ends", "restarted", "from a start"):
            allowed = 0.1 * torch.tensor(found[name][:-1]).abs()
            assert bool((found[f"{name}, residuals"] <= allowed).all()), name
        # thick restarts take more products in fewer vectors
        assert found["restarted"][1] > 6
        layers, whole = found["metric by layers"], found["metric by model"]
        assert layers.keys() == whole.keys()
        for name, numbers in whole.items():
            assert layers[name] == pytest.approx(numbers, rel=1e-5, abs=1e-8, nan_ok=True), name
        ours, exact = found["preconditioned by layers"], found["preconditioned by model"]
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=0)
        for name in ("too large", "too large on one"):
            assert "one layer is gathered at a time (the whole model would take" in found[name]
        # what layers are not enough for is measured by the model
        assert found["too large, and kept"] == "as asked for"
        assert found["too large, and dropout"] == "nothing"
        assert found["fits"] == "the gradient's graph is kept between products"
        assert found["left as found"]
        for name, said in SAID.items():
            assert said in found[name], name
