"""A small language model in transformers.Trainer, on sequences of several lengths."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

WORDS, LONGEST, SEQUENCES = 23, 9, 14


def language_model(dropout: float = 0.0) -> GPT2LMHeadModel:
    """GPT-2 with one block."""
    torch.manual_seed(1)
    shape = {"vocab_size": WORDS, "n_positions": LONGEST, "n_embd": 8, "n_layer": 1, "n_head": 2}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return GPT2LMHeadModel(GPT2Config(**shape, **drops, bos_token_id=0, eos_token_id=0))


def token_losses(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Each sequence's sum of the losses of its tokens."""
    logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float()
    return nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), inputs["labels"][:, 1:], reduction="none"
    ).sum(1)


def sequences(count: int = SEQUENCES) -> list[dict[str, Tensor]]:
    """Padded to one length; the padding has no loss."""
    source = torch.Generator().manual_seed(2)
    found = []
    for _ in range(count):
        words = torch.randint(0, WORDS, (LONGEST,), generator=source)
        length = int(torch.randint(3, LONGEST + 1, (), generator=source))
        mask = torch.arange(LONGEST) < length
        labels = words.masked_fill(~mask, -100)
        found.append({"input_ids": words, "attention_mask": mask.long(), "labels": labels})
    return found


@dataclass
class Pass:
    """What `training_step` was called with."""

    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    items: Tensor


class Recording(Trainer):
    """Takes the samples in order; keeps the inputs and the parameters of every micro-batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passes: dict[int, list[Pass]] = {}  # by step

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:
        state = copy.deepcopy(model.state_dict())
        kept = Pass(state, dict(inputs), num_items_in_batch)
        self.passes.setdefault(self.state.global_step, []).append(kept)
        return super().training_step(model, inputs, num_items_in_batch)


def trainer(folder: Path, model: nn.Module | None = None, **options: Any) -> Recording:
    """A Trainer on the CPU with plain SGD; three epochs of 14 sequences in batches of 4."""
    data = options.pop("data", None) or sequences()
    kind, callbacks = options.pop("kind", Recording), options.pop("callbacks", None)
    own: dict[str, Any] = {
        "use_cpu": True,
        "optim": "sgd",
        "learning_rate": 0.3,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "max_grad_norm": 0.1,
    }
    made: Recording = kind(
        model=language_model() if model is None else model,
        args=TrainingArguments(output_dir=str(folder), **{**own, **options}),
        train_dataset=data,
        eval_dataset=sequences(5),
        callbacks=callbacks,
    )
    return made
