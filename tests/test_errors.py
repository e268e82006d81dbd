"""Every error of the library is a GradNoiseError, and also what Python would call it."""

import inspect

import pytest
import torch

import gradnoise as gn
from gradnoise import errors

ERRORS = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_caught_as_a_gradnoise_error(error):
    with pytest.raises(gn.GradNoiseError, match="what was got"):
        raise error("what was got")


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (gn.ArgumentError, ValueError),
        (gn.NotMeasuredError, AttributeError),
        (gn.RandomLossError, gn.LossError),
        (gn.CoupledSamplesError, gn.LossError),
    ],
)
def test_an_error_is_also_the_more_general_one(error, also):
    assert issubclass(error, also)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_listed_and_says_when_it_is_raised(error):
    assert error.__name__ in gn.__all__
    assert error.__doc__


@pytest.mark.parametrize("value", [2, 3, 10**9])
def test_a_whole_number_large_enough_is_accepted(value):
    assert errors.check_whole("probes", value, 2) is None


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_what_is_no_whole_number_large_enough_is_refused(value):
    with pytest.raises(gn.ArgumentError, match="`probes` must be a whole number from 1 on; got"):
        errors.check_whole("probes", value, 1)


@pytest.mark.parametrize(
    ("check", "accepted"),
    [
        (errors.number, [0.5, -2, float("inf"), torch.tensor(3.0)]),
        (errors.finite, [0.0, -2, 1e300]),
        (errors.positive, [0.5, 10**9]),
        (errors.not_negative, [0, 0.5, float("inf")]),
    ],
)
def test_a_number_in_range_becomes_a_float(check, accepted):
    for value in accepted:
        assert type(check("x", value)) is float
        assert check("x", value) == float(value)


@pytest.mark.parametrize(
    ("check", "refused", "message"),
    [
        (errors.number, [None, "2", [1.0], 1j], "`x` must be a number; got"),
        (errors.finite, [float("inf"), float("nan")], "`x` must be a finite number; got"),
        (errors.positive, [0, -1.0, float("inf"), float("nan")], "`x` must be a positive number"),
        (errors.not_negative, [-1e-9, float("nan")], "`x` must be a number that is not negative"),
    ],
)
def test_a_number_out_of_range_is_refused(check, refused, message):
    for value in refused:
        with pytest.raises(gn.ArgumentError, match=message):
            check("x", value)


def test_infinity_is_positive_where_it_is_allowed():
    assert errors.positive("x", float("inf"), finite=False) == float("inf")


@pytest.mark.parametrize(
    ("error", "short_of_memory"),
    [
        (RuntimeError("CUDA out of memory. Tried"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), True),
        (torch.OutOfMemoryError("HIP"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_running_out_of_memory_is_recognised_on_every_device(error, short_of_memory):
    assert errors.is_out_of_memory(error) == short_of_memory


def test_the_first_line_of_a_foreign_error_is_quoted_with_its_type():
    assert errors.first_line(ValueError("  one\ntwo")) == "ValueError: one"
    quoted = errors.first_line(ValueError("x" * 161))
    assert quoted == "ValueError: " + "x" * 157 + "..."


def test_only_the_error_that_is_known_is_explained():
    def raised(error):
        with errors.explained(ValueError, "per channel", lambda: gn.LossError("why")):
            raise error

    with pytest.raises(gn.LossError, match="why") as found:
        raised(ValueError("more than 1 value per channel"))
    assert isinstance(found.value.__cause__, ValueError)
    for other in (ValueError("another"), TypeError("per channel")):
        with pytest.raises(type(other)) as found:
            raised(other)
        assert found.value is other
