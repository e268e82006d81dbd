"""What people are told about an engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests.cases import CASES, mlp
from tests.layer_cases import LAYERS


def case(name: str) -> Any:
    return next(case for case in (*CASES, *LAYERS) if case.name == name).build()


def test_every_parameter_has_its_operation_rule_and_cost() -> None:
    report = gn.explain_engine(*case("embedding and LSTM"))
    assert report.engine == "hooks"
    uses = {use.parameter: use for use in report.uses}
    assert list(uses) == [name for name, _ in case("embedding and LSTM")[0].named_parameters()]
    assert uses["embedding.weight"].rule == "rows looked up"
    assert uses["lstm.weight_hh_l0"].operations == "linear ×4"
    assert uses["head.weight"].rule == "product of norms"
    assert all(use.plain > 0 and use.reason for use in report.uses)


def test_the_table_names_what_it_counts() -> None:
    text = str(gn.explain_engine(*case("MLP with cross-entropy")))
    assert text == repr(gn.explain_engine(*case("MLP with cross-entropy")))
    assert "engine 'hooks': the cheapest that is right here" in text
    assert "product of norms" in text
    assert "cost: operations beyond a forward and backward pass" in text
    assert max(map(len, text.split("\n"))) <= 100


def test_a_model_that_cannot_be_followed_is_told_why_and_what_to_do() -> None:
    report = gn.explain_engine(*case("custom function beside layers"))
    assert report.engine == "functional"
    assert not report.uses
    text = " ".join(str(report).split())
    assert "hooks cannot: parameter 'w' is used by an operation that the hooks cannot see" in text
    assert "What to do" in text


def test_parameters_that_take_no_part_are_said_to() -> None:
    report = gn.explain_engine(*case("layer norm and unused parameters"))
    unused = [use.rule for use in report.uses if use.parameter.startswith("unused")]
    assert unused == ["none", "none"]
    assert "takes no part in the loss" in str(report)


@pytest.mark.parametrize("engine", ["functional", "loop", "backpack"])
def test_other_engines_treat_the_model_as_a_whole(engine: str) -> None:
    batch = (torch.randn(6, 4), torch.randint(3, (6,)))
    report = gn.explain_engine(mlp(), nn.CrossEntropyLoss(), batch, engine=engine)
    assert report.engine == engine
    assert report.uses == ()
