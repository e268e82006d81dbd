"""Peak memory of measuring GPT-2 small (124 M parameters) beyond that of a training step.

    python benchmarks/large.py --calls gn.profile --precisions float32

12 layers, 768 wide, 50257 words, 64 tokens, random weights, one micro-batch of 8 samples, on the
CPU. Each peak is that of a fresh process over what it holds before, in copies of the parameters
in float32. A training step is forward, backward and SGD. Rows are those of the largest Krylov
basis, each as long as the parameters. Stages are where the process was whenever its memory was
looked at, ten times a second: the innermost files of gradnoise, and the innermost function.

A process ends with an error rather than take more than --limit, and a call after --minutes: *.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

import torch
from calls import RATE, Trained
from measure import Run, common_options, fresh, growth, resident, rounded, show, versions
from tasks import library

import gradnoise as gn
from gradnoise.linalg.krylov import Krylov

GIB = 2**30
SAMPLES, TOKENS = 8, 64
CALLS = ("gn.gradient_moments", "gn.sharpness", "gn.noise_scale", "gn.profile")
PRECISIONS = ("float32", "autocast", "bfloat16")
EACH = 0.1  # seconds between two looks at the memory
SHOWN = 12  # stages
DEPTH = 4  # files that name a stage


def gpt2_small(dtype: torch.dtype) -> Trained:
    """With random weights."""
    transformers = library("transformers", "test")
    torch.manual_seed(0)
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_positions=TOKENS, **drops))
    batch = {"input_ids": torch.randint(model.config.vocab_size, (SAMPLES, TOKENS))}
    model.to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    return Trained(model, gn.causal_lm(), batch, SAMPLES, optimizer)


def step(of: Trained) -> None:
    """A training step."""
    of.losses(of.model, of.batch).mean().backward()
    of.optimizer.step()
    of.optimizer.zero_grad()


class Stages(threading.Thread):
    """Looks at the memory of this process and at what it is doing."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._watched, self._done = threading.get_ident(), threading.Event()
        self.largest: dict[str, int] = {}

    def run(self) -> None:
        while not self._done.wait(EACH):
            now, frame = resident("VmRSS"), sys._current_frames()[self._watched]
            own = [f for f in traceback.extract_stack(frame) if "/gradnoise/" in f.filename]
            files = [f.filename.split("/gradnoise/")[-1].removesuffix(".py") for f in own]
            chain = [name for name, _ in itertools.groupby(files)][-DEPTH:]
            stage = " > ".join([*chain, *(f.name for f in own[-1:])])
            self.largest[stage] = max(self.largest.get(stage, 0), now)

    def stop(self) -> None:
        self._done.set()
        self.join()


def stop(*_: Any) -> None:
    raise TimeoutError


def work(call: str, asked: str) -> dict[str, Any]:
    """Growth of the peak of one call, in this process."""
    precision, limit, minutes = asked.split()
    resource.setrlimit(resource.RLIMIT_AS, (int(limit) * GIB,) * 2)
    signal.signal(signal.SIGALRM, stop)
    half = precision == "autocast"
    problem = gpt2_small(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    rows, append = [0], Krylov._append

    def counted(self: Krylov, vector: torch.Tensor) -> torch.Tensor:
        rows.append(self.count + 1)
        return append(self, vector)

    Krylov._append = counted  # type: ignore[method-assign]
    run: Run = (lambda: step(problem)) if call == "train" else (lambda: problem.call(call))
    finished = False

    def bounded() -> None:
        nonlocal finished
        with suppress(TimeoutError), torch.autocast("cpu", torch.bfloat16, enabled=half):
            signal.alarm(60 * int(minutes))
            run()
            signal.alarm(0)
            finished = True

    before, stages = resident("VmRSS"), Stages()
    stages.start()
    grown = growth(bounded)
    stages.stop()
    return {
        "bytes": grown,
        "parameters": sum(p.numel() for p in problem.model.parameters()),
        "rows": max(rows),
        "finished": finished,
        "stages": {name: peak - before for name, peak in stages.largest.items()},
    }


def measured(call: str, precision: str, asked: argparse.Namespace) -> dict[str, Any]:
    print(f"{precision}: {call}", file=sys.stderr)
    limits = f"{precision} {asked.limit} {asked.minutes}"
    options = ["--threads", str(asked.threads), "--worker", call, limits]
    return fresh([__file__, *options])


def main() -> None:
    parser = common_options(__doc__, ["gpt2-small"])
    parser.add_argument("--calls", nargs="+", choices=CALLS, default=list(CALLS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--limit", type=int, default=18, help="GiB of address space")
    parser.add_argument("--minutes", type=int, default=20, help="of a call at most")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)  # of others: what is freed is given back
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    rows = [["", "copies", "beyond training", "rows of the basis"]]
    for precision in asked.precisions:
        unit = 0.0
        for call in ("train", *asked.calls):
            found = measured(call, precision, asked)
            if "bytes" not in found:
                rows.append([f"{precision}, {call}", "–", found["note"], ""])
                continue
            copy = 4 * found["parameters"]
            copies = found["bytes"] / copy
            unit = copies if call == "train" else unit
            beyond, basis = f"{copies - unit:+.1f}", str(found["rows"])
            mark = "" if found["finished"] else "*"
            rows.append([f"{precision}, {call}{mark}", rounded(copies), beyond, basis])
            if call != "train":
                largest = sorted(found["stages"].items(), key=lambda pair: -pair[1])[:SHOWN]
                stages = [["stage", "copies"], *([name, f"{b / copy:.1f}"] for name, b in largest)]
                show(f"{precision}, {call}", stages, asked.markdown)
    show("peak memory in copies of the parameters in float32", rows, asked.markdown)
    print(versions("transformers"))


if __name__ == "__main__":
    main()
