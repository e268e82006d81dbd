"""Supervised fine-tuning with packed sequences: `python examples/packed_sft.py [FOLDER]`.

A collator puts several sequences into one row without padding, as TRL does with `packing=True`; the
boundaries are in `position_ids`, and only answers have labels. Such a batch has no dimension of
samples. What is drawn at random and averaged is the row, so that the noise scale here is in packed
rows, measured from the micro-batches of an accumulation.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorWithFlattening,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

import gradnoise as gn

WORDS, IN_A_ROW, ROWS = 32, 4, 8  # rows in an optimizer step


def data(count: int = 1024) -> list[dict[str, list[int]]]:
    """Prompts of several lengths; the answer repeats the last three words of the prompt."""
    torch.manual_seed(0)
    found = []
    for length in torch.randint(4, 12, (count,)).tolist():
        prompt = torch.randint(1, WORDS, (length,)).tolist()
        answer = prompt[-3:]
        found.append({"input_ids": prompt + answer, "labels": [-100] * length + answer})
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS, n_positions=32, n_embd=32, n_layer=1, n_head=2, bos_token_id=0
    )
    arguments: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=IN_A_ROW,
            gradient_accumulation_steps=ROWS,
            num_train_epochs=2,
            learning_rate=3e-3,
            logging_steps=16,
            save_strategy="no",
            **arguments,
        ),
        train_dataset=data(),
        data_collator=DataCollatorWithFlattening(),
    )
    monitor = gn.attach(trainer, every=4, sink=folder / "run.jsonl")
    trainer.train()
    print(monitor)
    print(f"a sample is a packed row of {IN_A_ROW} sequences; a step has {ROWS} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
