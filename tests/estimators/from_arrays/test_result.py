"""B_simple with its parts is an estimate."""

from __future__ import annotations

import gradnoise as gn
from tests.numbers import rows


def test_an_estimate_with_parts_is_an_estimate_and_survives_a_dictionary() -> None:
    g = rows()
    found = gn.noise_scale_from_gram(g @ g.T)
    assert isinstance(found, gn.Estimate)
    assert str(found) == str(gn.noise_scale_from_gradients(g).simple_noise_scale)
    assert found.to_dict()["trace_cov"]["status"] == "resolved"
    assert gn.SimpleNoiseScale.from_dict(found.to_dict()) == found
