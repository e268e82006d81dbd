"""What is measured of a model that changes along the run."""

from __future__ import annotations

from torch import nn

from gradnoise.monitor.watched import Watched


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Dropout(0.1))


def test_it_takes_the_model_as_it_is() -> None:
    own = Watched(model())
    assert own.names == [*own.parameters] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert not own.refresh()
    own.model[0].requires_grad_(False)
    assert own.refresh()
    assert own.names == ["1.weight", "1.bias"]
    assert not own.refresh()
    own.model[0] = nn.Linear(4, 4)
    assert own.refresh()
    assert own.parameters["0.weight"] is own.model[0].weight
    own.model.eval()
    assert own.refresh()


def test_of_normalisation_layers_alone() -> None:
    own = Watched(model(), of_norms=True)
    assert own.names == ["1.weight", "1.bias"]
    assert len(own.parameters) == 4
    own.model[1].requires_grad_(False)
    own.refresh()
    assert own.names == []
