"""Hugging Face's Trainer with everything switched off that need not be on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any


def trainer(model: Any, rows: Any, epochs: int, batch_size: int, rate: float, **more: Any) -> Callable[[], object]:
    """Return what trains a model: the fused optimizer, no logging, no saving, no progress bar."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    arguments: dict[str, Any] = {
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": epochs,
        "learning_rate": rate,
        "optim": "adamw_torch_fused",
        "use_cpu": True,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **more,
    }
    settings = TrainingArguments(output_dir=tempfile.mkdtemp(), **arguments)
    found = Trainer(model=model, args=settings, train_dataset=rows)
    found.remove_callback(PrinterCallback)
    return found.train
