"""The noise scale while transformers.Trainer fine-tunes a small classifier.

    python examples/trainer.py [FOLDER]

The values are in the logs that the Trainer prints, in `trainer.state.log_history`, and in
FOLDER/run.jsonl.
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import gradnoise as gn

WORDS, LENGTH = 50, 12


def data(count: int = 4096) -> list[dict[str, torch.Tensor]]:
    """Sequences of words; the first one decides about the label, and one in four is wrong."""
    torch.manual_seed(0)
    rows = torch.randint(WORDS, (count, LENGTH))
    labels = ((rows[:, 0] < WORDS // 2) ^ (torch.rand(count) < 0.25)).long()
    return [{"input_ids": row, "labels": label} for row, label in zip(rows, labels, strict=True)]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    trainer = Trainer(
        model=BertForSequenceClassification(config),
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=128,
            num_train_epochs=1,
            learning_rate=1e-3,
            logging_steps=8,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=data(),
    )
    monitor = gn.attach(trainer, every=2, sink=folder / "run.jsonl")
    trainer.train()
    print(monitor)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
