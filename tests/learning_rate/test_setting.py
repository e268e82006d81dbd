"""How a model is trained now."""

import pytest

from gradnoise.learning_rate.setting import Setting


@pytest.mark.parametrize(
    ("optimizer", "momentum", "effective"), [("sgd", 0.5, 0.2), ("adam", 0.5, 0.1)]
)
def test_the_effective_rate_counts_the_momentum(optimizer, momentum, effective):
    assert Setting(32, 0.1, momentum, optimizer).effective_lr == pytest.approx(effective)
    assert Setting(32).effective_lr is None


def test_an_optimizer_that_follows_the_noise_scales_with_the_square_root():
    assert Setting().scaling == "linear"
    assert Setting(rescales="AdamW").scaling == "sqrt"


def test_the_optimizer_is_named_with_its_momentum():
    assert Setting(momentum=0.9).who == "SGD with momentum 0.9"
    assert Setting(rescales="RMSprop").who == "RMSprop"
