"""`gradnoise profile`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ..errors import ArgumentError, GradNoiseError
from ..problem.optimizer_settings import OptimizerSettings
from ..profiles.profile import Profile, profile
from ..toy.digits import BATCH_SIZE, LR, digits, trained_digits
from ..trials.advise import advise
from .arguments import check_targets, chosen, one_line, shows_progress, tell_written, whole
from .json_output import beside, write_json
from .launched import is_first, launched
from .target import check_optimizer, factory_of, samples_of, threads_of

PROFILED = (
    *("metric", "batch_size", "engine", "unit", "group_size", "seed", "probes", "accuracy"),
    *("budget", "spectra"),
)


def run(options: argparse.Namespace) -> int:
    """Measure one model, and judge the setting that it is trained with."""
    check_targets(options)
    with threads_of(options.target), launched() as group:
        return _run(options, group)


def _run(options: argparse.Namespace, group: Any) -> int:
    if options.advise is not None and group is not None:
        raise ArgumentError("--advise trains in one process: run it without torchrun")
    model, loss_fn, data, optimizer = _problem(options)
    if options.advise is not None:
        check_optimizer((model, loss_fn, data, optimizer), options.target)
    if options.momentum is not None and options.lr is None and optimizer is None:
        raise ArgumentError("--momentum needs --lr, or a factory that returns its optimizer")
    result = profile(
        model,
        loss_fn,
        data,
        optimizer=optimizer,
        max_samples=options.samples,
        population=_population(options.population),
        progress=shows_progress(options) and is_first(group),
        process_group=group,
        **chosen(options, *PROFILED),
    )
    if options.advise is not None:
        result = _advised(result, (model, loss_fn, data, optimizer), options)
    if not is_first(group):
        return 0
    result = _with_setting(result, options)
    result = replace(result, environment={**result.environment, "command": options.line})
    write_json(result.to_dict() if options.json else {}, options.json)
    report = beside(options.json)
    try:  # before the report, which a reader may stop reading
        if options.html:
            result.to_html(options.html)
        if options.plot:
            result.plot(options.plot)
    finally:
        print(result.report(full=options.full), file=report)
    return tell_written(options.json, options.html, options.plot, file=report)


def _advised(
    result: Profile, problem: tuple[Any, Any, Any, Any], options: argparse.Namespace
) -> Profile:
    """With what short training from here finds; what was measured is kept where it cannot train."""
    try:
        return result.with_advice(
            advise(
                *problem,
                budget=samples_of(problem[2], options.advise, "--advise"),
                progress=shows_progress(options),
                **chosen(options, "batch_size"),
            )
        )
    except GradNoiseError as error:
        note = f"there is no advice from short training: {one_line(error)}"
        return replace(result, warnings=(*result.warnings, note))


def _problem(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    if options.target == "digits":
        options.batch_size, options.lr = options.batch_size or BATCH_SIZE, options.lr or LR
        training = chosen(options, "seed", "lr", "batch_size", "momentum", "epochs")
        if options.advise is not None:
            return digits(**training)
        return *trained_digits(**training)[:3], None  # a torch optimizer takes a second to import
    if options.epochs is not None:
        raise ArgumentError("--epochs is for digits; your own factory decides how it trains")
    return factory_of(options.target)()


def _with_setting(result: Profile, options: argparse.Namespace) -> Profile:
    """The report about the learning rate and momentum given on the command line."""
    if options.lr is None and options.momentum is None:
        return result
    settings = result.optimizer or OptimizerSettings("SGD", options.lr)
    return replace(result, optimizer=replace(settings, **chosen(options, "lr", "momentum")))


def _population(text: str) -> str | int:
    try:
        return int(whole(1)(text))
    except argparse.ArgumentTypeError:
        return text
