"""Per-sample losses of a torch criterion."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise import LossError, per_sample_sq_norms, supervised
from gradnoise.tensors.trees import select
from tests.language import PADDED, SIZES

N, C, T = 4, 3, 5
OUTPUT = torch.randn(N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SEQUENCE = torch.randn(N, C, T, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CLASSES, TAGS = torch.tensor([0, 2, 1, 1]), torch.arange(N * T).reshape(N, T) % C
UNIT = torch.sigmoid(OUTPUT)
WEIGHT = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

CRITERIA = [
    (nn.CrossEntropyLoss(), OUTPUT, CLASSES),
    (nn.CrossEntropyLoss(label_smoothing=0.1), OUTPUT, CLASSES),
    (nn.CrossEntropyLoss(), OUTPUT, OUTPUT.softmax(1)),
    (nn.CrossEntropyLoss(), SEQUENCE, TAGS),
    (nn.CrossEntropyLoss(weight=WEIGHT, reduction="sum"), SEQUENCE, TAGS),
    (nn.NLLLoss(), OUTPUT.log_softmax(1), CLASSES),
    (nn.MSELoss(), OUTPUT, UNIT),
    (nn.MSELoss(reduction="sum"), OUTPUT, UNIT),
    (nn.L1Loss(), OUTPUT, UNIT),
    (nn.HuberLoss(), SEQUENCE, SEQUENCE.flip(0)),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), OUTPUT, UNIT),
    (nn.KLDivLoss(reduction="batchmean"), OUTPUT.log_softmax(1), OUTPUT.softmax(1)),
    (nn.PoissonNLLLoss(), OUTPUT, UNIT),
    (F.mse_loss, OUTPUT, UNIT),
    (F.cross_entropy, OUTPUT, CLASSES),
]


@pytest.mark.parametrize(("criterion", "outputs", "targets"), CRITERIA)
def test_each_loss_is_the_criterion_of_that_sample_alone(
    criterion: Any, outputs: Tensor, targets: Tensor
) -> None:
    losses = supervised(criterion)(nn.Identity(), (outputs, targets))
    alone = [criterion(outputs[i : i + 1], targets[i : i + 1]) for i in range(N)]
    assert losses.shape == (N,)
    torch.testing.assert_close(losses, torch.stack(alone), rtol=1e-13, atol=1e-13)


def test_ignored_positions_do_not_count_in_a_samples_mean() -> None:
    targets = TAGS.clone()
    targets[0, 2:] = -100
    targets[1] = -100
    losses = supervised(nn.CrossEntropyLoss())(nn.Identity(), (SEQUENCE, targets))
    kept = F.cross_entropy(SEQUENCE[:1, :, :2], TAGS[:1, :2])
    torch.testing.assert_close(losses[0], kept)
    assert losses[1] == 0


def test_a_bare_function_ignores_what_it_ignores_by_default() -> None:
    targets = TAGS.clone()
    targets[0, 2:] = -100
    bare, module = (
        supervised(criterion)(nn.Identity(), (SEQUENCE, targets))
        for criterion in (F.cross_entropy, nn.CrossEntropyLoss())
    )
    assert torch.equal(bare, module)


def test_the_logits_of_an_output_object_are_compared() -> None:
    class Output(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return SimpleNamespace(logits=x)

    losses = supervised(nn.MSELoss())(Output(), (OUTPUT, UNIT))
    assert torch.equal(losses, supervised(nn.MSELoss())(nn.Identity(), (OUTPUT, UNIT)))


def test_the_criterion_itself_stays_as_it_was() -> None:
    criterion = nn.MSELoss()
    supervised(criterion)
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_class_weights_are_weights_of_the_samples(kind: Any) -> None:
    outputs = torch.randn(5, len(WEIGHT), dtype=WEIGHT.dtype).log_softmax(1)
    labels = torch.tensor([0, 1, 0, -100, 1])
    loss_fn: Any = supervised(kind(weight=WEIGHT))
    losses, weights = (
        loss_fn(nn.Identity(), (outputs, labels)),
        loss_fn.weights(None, (outputs, labels)),
    )
    torch.testing.assert_close(losses, kind(reduction="none")(outputs, labels))
    whole = kind(weight=WEIGHT)(outputs, labels)
    torch.testing.assert_close((weights * losses).sum() / weights.sum(), whole)
    products, again = loss_fn.weighted(nn.Identity(), (outputs, labels))
    assert torch.equal(weights, again)
    torch.testing.assert_close(products, weights * losses)
    equal: Any = supervised(kind(weight=WEIGHT), weights="equal")
    assert equal.weighted(nn.Identity(), (outputs, labels)) is None


@pytest.mark.parametrize(
    ("criterion", "batch", "message"),
    [
        (nn.MSELoss(reduction="none"), (OUTPUT, UNIT), r"several per sample; pass reduction="),
        (nn.MSELoss(), OUTPUT, r"needs batches \(inputs, targets\); got Tensor"),
        (nn.MSELoss(), (OUTPUT, UNIT, UNIT), r"got tuple of 3"),
        (nn.MSELoss(), (OUTPUT[:, :1], UNIT[:, 0]), r"broadcast to \(4, 4\); give them the same"),
        (nn.MSELoss(), ((OUTPUT, OUTPUT), UNIT), r"returns a tensor; this one returned tuple"),
        (lambda x, y, reduction: (x - y).mean(), (OUTPUT, UNIT), r"single number for the whole"),
    ],
)
def test_what_has_no_per_sample_losses_is_an_error(
    criterion: Any, batch: Any, message: str
) -> None:
    with pytest.raises(LossError, match=message):
        supervised(criterion)(nn.Identity(), batch)


def test_a_criterion_without_reduction_is_refused() -> None:
    with pytest.raises(LossError, match=r"Identity has no `reduction`"):
        supervised(nn.Identity())


class Tagger(nn.Module):
    """Scores of every token, in the form that is asked for."""

    def __init__(self, form: str = "last") -> None:
        super().__init__()
        self.form = form
        self.table = nn.Embedding(9, C, dtype=torch.float64)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        scores = self.table(ids) if mask is None else self.table(ids) * mask[..., None]
        if self.form == "flat":
            return scores.reshape(-1, C)
        if self.form == "with a state":
            return scores, (scores[0], None)
        return {"out": scores.mT} if self.form == "out" else scores


WORDS = torch.randint(9, (N, T), generator=torch.Generator().manual_seed(2))
SEEN = torch.arange(T) < torch.tensor([5, 3, 4, 2])[:, None]
FORMS: dict[str, Any] = {
    "classes last": (Tagger(), (WORDS, TAGS), nn.CrossEntropyLoss()),
    "flat": (Tagger("flat"), (WORDS, TAGS), F.cross_entropy),
    "segmentation": (Tagger("out"), (WORDS, TAGS), nn.CrossEntropyLoss()),
    "a tuple": (Tagger("with a state"), (WORDS, TAGS), nn.CrossEntropyLoss()),
    "three entries": (Tagger(), (WORDS, SEEN, TAGS), nn.CrossEntropyLoss()),
    "a mapping": (Tagger(), {"ids": WORDS, "mask": SEEN, "labels": TAGS}, nn.CrossEntropyLoss()),
    "two inputs in one": (nn.Bilinear(C, C, C).double(), ((OUTPUT, UNIT), UNIT), nn.MSELoss()),
    "one of a foreign name": (nn.Linear(C, C).double(), {"image": OUTPUT, "y": UNIT}, F.mse_loss),
    "one's own criterion": (
        nn.Linear(C, C).double(),
        (OUTPUT, UNIT),
        lambda outputs, targets: (outputs - targets).square().mean(),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_people_have_are_measured_sample_by_sample(form: str) -> None:
    model, batch, criterion = FORMS[form]
    loss_fn = supervised(criterion)
    losses = loss_fn(model, batch)
    alone = [loss_fn(model, select(batch, slice(i, i + 1))) for i in range(N)]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-12, atol=0)
    if isinstance(model, Tagger):
        mask = SEEN if form in ("three entries", "a mapping") else None
        scores = Tagger.forward(model, WORDS) if model.form == "last" else model.table(WORDS)
        scores = scores if mask is None else scores * mask[..., None]
        expected = F.cross_entropy(scores.mT, TAGS, reduction="none").mean(1)
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    norms = per_sample_sq_norms(model, loss_fn, batch)
    alone_norms = per_sample_sq_norms(model, loss_fn, batch, engine="loop")
    torch.testing.assert_close(norms, alone_norms, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["labels", "label"])
def test_classification_as_hugging_face_has_it(name: str) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()
    batch = {**PADDED, name: torch.tensor([0, 2, 1])}
    losses = supervised(nn.CrossEntropyLoss())(model, batch)
    theirs = model(**PADDED, labels=batch[name])
    torch.testing.assert_close(losses.mean(), theirs.loss)
