"""The names that rules know. No torch is imported here: `gradnoise check --help` lists them."""

from __future__ import annotations

from ..learning_rate.units import OF_LIMITS, OF_QUANTITIES, RATE, SAMPLES

TIME = "time"

# name -> unit; two names are compared only where the unit is the same
UNITS = {
    **OF_QUANTITIES,
    **OF_LIMITS,
    "doubling_lr": RATE,
    "critical_batch_size": SAMPLES,
    "relative_steps": "1",
    "relative_samples": "1",
    "lr": RATE,
    "momentum": "1",
    "batch_size": SAMPLES,
    "group_size": SAMPLES,
    "samples": SAMPLES,
    "population": SAMPLES,
    "parameters": "parameters",
    "passes": "passes",
    "age": TIME,
}
SECONDS = {
    **dict.fromkeys(("s", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400.0),
}
RESOLVED, SETTLED, OLDER = "resolved", "settled", "not-older-than"
WRITTEN_OUT = {  # ready-made rules that stand for a comparison
    "lr-below-limit": "lr < mean_square_lr",
    "batch-below-noise-scale": "batch_size <= noise_scale",
    "batch-near-critical": "batch_size <= 2 * critical_batch_size",
}
READY = (RESOLVED, SETTLED, f"{OLDER}=7d", *WRITTEN_OUT)
