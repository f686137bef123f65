"""A process that fine-tunes a tiny language model by LoRA and is killed: as loop_victim.py, but for what it trains."""

from __future__ import annotations

import hashlib
from pathlib import Path

import loop_victim

from kit.tiny_language_model import LAYERS, SHOUTED, byte_rows, tiny_base
from mainspring.training.loop.lora import adapter_file, fit_lora, import_peft


def train(folder: Path) -> tuple[int, str]:
    steps: list[str] = []
    rows = byte_rows(SHOUTED)
    model = fit_lora(
        tiny_base(), rows, targets=LAYERS, dropout=0.1, lr=0.01, epochs=6, batch_size=5, seed=3, validation=rows,
        checkpoints=folder, checkpoint_every_steps=1, keep=2, progress=lambda what, _share: steps.append(what),
    )  # fmt: skip
    resumed = next((int(what.rpartition(" ")[2]) for what in steps if what.startswith("resumes")), 0)
    return resumed, hashlib.sha256(adapter_file(model)).hexdigest()


if __name__ == "__main__":
    import_peft("Dying")
    loop_victim.main(train)
