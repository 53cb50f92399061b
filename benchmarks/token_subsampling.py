"""What M-TIES loses and saves by looking at a few tokens of each sample.

    python benchmarks/token_subsampling.py --data TEXTS --models MODELS

--models is what minilm_finetunes.py wrote: all of them are merged on 128 unlabelled
texts of their tasks in equal parts. For each number of tokens, the rank correlation of
the node scores with those of all tokens on the same texts (lowest and mean over sites),
and how much of the pruned step differs; beside it, what 128 other texts do to both:
differences below that are less than the choice of samples makes. Seconds are process
time. Stores `results/token_subsampling.json`.
"""

import argparse
import json
import os
from pathlib import Path
from time import process_time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from minilm_finetunes import PRETRAINED
from scipy.stats import spearmanr

from mloss.calibration import open_calibration
from mloss.given_models import runnable
from mloss.merging import METHODS

RESULTS = Path(__file__).parent / "results" / "token_subsampling.json"
SAMPLES = 128
TOKENS = (16, 8, 4, 2, 1)


def merged(given, batches, tokens):
    """The lazy merge, and the process time of its pass over the samples."""
    start = process_time()
    lazy = METHODS["m_ties"].lazily(
        given.base, given.sources, model=given.model, data=batches, tokens=tokens
    )
    return lazy, process_time() - start


def difference(lazy, full, base):
    """Rank correlations with the full scores, and the share of the step that moved."""
    ranks = [spearmanr(lazy.rates[s], full.rates[s]).statistic for s in full.rates]
    moved, step = 0.0, 0.0
    for layer in full.rates:
        key = f"{layer}.weight"
        moved += (lazy[key] - full[key]).double().square().sum().item()
        step += (full[key] - base[key]).double().square().sum().item()
    return {
        "rank_lowest": min(ranks),
        "rank_mean": sum(ranks) / len(ranks),
        "step_moved": (moved / step) ** 0.5,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    paths = sorted(p for p in options.models.iterdir() if (p / "config.json").exists())
    texts = [options.data / f"{path.name}.jsonl.gz" for path in paths]
    calibration = open_calibration(texts, checkpoint=PRETRAINED)
    both = list(calibration.batches(2 * SAMPLES))
    here, there = both[: len(both) // 2], both[len(both) // 2 :]
    given = runnable(PRETRAINED, paths)
    with torch.inference_mode():
        full, seconds = merged(given, here, None)
        others, _ = merged(given, there, None)
        rows = {
            "all": {"seconds": seconds},
            "other texts": difference(others, full, given.base),
        }
        for tokens in TOKENS:
            few, seconds = merged(given, here, tokens)
            found = difference(few, full, given.base)
            rows[f"{tokens} tokens"] = {"seconds": seconds} | found
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch in here]).float()
    report = {
        "models": [path.name for path in paths],
        "samples": SAMPLES,
        "tokens_mean": lengths.mean().item(),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    for name, row in rows.items():
        print(f"{name:12}", {key: round(value, 3) for key, value in row.items()})


if __name__ == "__main__":
    main()
