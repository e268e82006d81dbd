"""The noise of the steps holds the loss up: by formula, and by the recursion of the spread."""

import math

import pytest

from gradnoise.learning_rate.noise_floor import doubling_lr, in_training

NAN, INF = math.nan, math.inf


def test_it_is_the_formula() -> None:
    assert doubling_lr(0.5, 1.0, 8.0, 0.25, 1.0) == 0.4  # 1/(2 + 8/16)
    assert doubling_lr(0.5, 1.0, 8.0, 0.25, 10.0) == pytest.approx(1 / (2 + 5))
    assert doubling_lr(0.5, 0.01, 8.0, 0.25, 1.0) == pytest.approx(1 / 52)


@pytest.mark.parametrize(
    ("numbers", "value"),
    [
        ((0.5, 1.0, 8.0, 0.0, 1.0), 0.5),  # the full batch has no noise
        ((0.5, 1.0, -1.0, 0.25, 1.0), 0.5),  # the lower end of an interval of trΣ
        ((0.0, 1.0, 8.0, 0.25, 1.0), 0.0),
        ((INF, 1.0, 8.0, 0.25, 1.0), 2.0),  # no curvature: 4L/(p·trΣ)
        ((INF, 1.0, 0.0, 0.25, 1.0), INF),
    ],
)
def test_ends(numbers, value) -> None:
    assert doubling_lr(*numbers) == value


def test_an_unknown_limit_leaves_it_unknown() -> None:
    assert math.isnan(doubling_lr(NAN, 1.0, 8.0, 0.25, 1.0))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_there_the_spread_of_the_weights_holds_as_much_loss(momentum) -> None:
    """E[w²], E[wv], E[v²] of heavy ball on ½·3w² in two directions, noise 5 each, B = 4."""
    curvature, noise, size, loss = 3.0, 5.0, 4.0, 0.7
    limit = 2 * (1 + momentum) / curvature
    lr = doubling_lr(limit, loss, 2 * noise, 1 / size, 1 / (1 - momentum))
    ww = wv = vv = 0.0
    for _ in range(20_000):  # v ← mv + hw + n, w ← w - εv
        h, m = curvature, momentum
        vv, wv, ww = m * m * vv + 2 * m * h * wv + h * h * ww + noise / size, m * wv + h * ww, ww
        wv, ww = wv - lr * vv, ww - 2 * lr * wv + lr * lr * vv
    assert 2 * curvature * ww / 2 == pytest.approx(loss)


@pytest.mark.parametrize(
    ("rescales", "said"),
    [
        (None, "Most trained runs of SGD kept their loss up to 0.4 to 5 times the rate at which"),
        ("AdamW", "Most trained runs of Adam and AdamW kept their loss up to 0.1 to 2.5 times the"),
    ],
)
def test_what_runs_bore_is_said(rescales, said) -> None:
    (text,) = in_training(0.4, 16, rescales)
    assert text.startswith(said)
    assert "at B = 16, " in text


def test_the_range_is_in_the_unit_of_the_rate() -> None:
    assert "at B = 16, 0.160 to 2.00." in in_training(0.4, 16, None)[0]


def test_of_optimizers_that_were_not_tried_nothing_is_said() -> None:
    assert in_training(0.4, 16, "RMSprop") == ()


def test_where_the_rate_is_not_known_nothing_is_said() -> None:
    assert in_training(NAN, 16, None) == ()
