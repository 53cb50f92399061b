"""Which predictor orders the gaps of merged MiniLM fine-tunes? All pairs of a pool.

    python benchmarks/minilm_pairs.py --data TEXTS --models MODELS [--samples 64]

--models is what minilm_finetunes.py wrote. For every pair, on unlabelled texts of both
tasks in equal parts: the measured gap of the plain average, M-Loss and its predictions.
Stores `results/minilm_pairs.json`, a row a pair, and goes on where it was stopped;
prints the tables of docs/minilm.md. Intervals resample models.
"""

import argparse
import json
import os
from itertools import combinations
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from minilm_finetunes import PRETRAINED

from mloss.agreement import agreements, predictions
from mloss.beyond import attention_mloss
from mloss.calibration import open_calibration
from mloss.correlation import rank_correlation, rank_correlation_lead, size_ratio
from mloss.gap import gap
from mloss.given_models import runnable
from mloss.score import score
from mloss.streaming import AveragedState

RESULTS = Path(__file__).parent / "results" / "minilm_pairs.json"
PREDICTORS = {
    "mloss": "M-Loss, sum over layers of Eq. 3",
    "mloss_normalized": "M-Loss, sum over layers of Eq. 6",
    "attention": "attention M-Loss, sum over modules",
    "density": "density law",
    "uniform": "uniform law",
    "paper": "the paper's formula",
    "data-free": "data-free",
    "distance": "distance of the weights",
}


def measured(pair: tuple[Path, Path], data: Path, samples: int) -> dict:
    given = runnable(PRETRAINED, pair)
    texts = [data / f"{path.name}.jsonl.gz" for path in pair]
    calibration = open_calibration(texts, checkpoint=PRETRAINED)
    batches = list(calibration.batches(samples))
    scored = score(given.base, given.sources, batches, model=given.model)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    average = AveragedState(given.base, given.sources, weights=half)
    distance = gap(average, given.sources, batches, model=given.model)
    attention = attention_mloss(given.base, given.sources, batches, model=given.model)
    return {
        "models": [path.name for path in pair],
        "gap": distance.mean,
        "gap_stderr": distance.stderr,
        "gap_relative": distance.relative,
        "mloss": sum(site.layer for site in scored.sites),
        "mloss_normalized": sum(site.layer_normalized for site in scored.sites),
        "attention": sum(each.output for each in attention.modules),
        **{name: predicted(scored, name) for name in ("density", "uniform", "paper")},
        "data-free": predicted(scored, "data-free"),
        "distance": weight_distance(given),
        "nodes": [
            {
                "prediction": a.prediction,
                "layer": a.layer_name,
                "rank_correlation": a.rank_correlation,
                "ratio": a.ratio,
                "spread": a.spread,
            }
            for a in agreements(scored)
        ],
    }


def predicted(scored, name: str) -> float:
    """Sum over layers of the length of the predicted node means."""
    found = (predictions(site).get(name) for site in scored.sites)
    return sum(nodes.norm().item() for nodes in found if nodes is not None)


def weight_distance(given) -> float:
    one, two = given.sources
    return (
        sum(
            (one[k].double() - two[k].double()).square().sum().item()
            for k, value in given.base.items()
            if value.is_floating_point()
        )
        ** 0.5
    )


def tables(rows: list[dict]) -> str:
    names = sorted({name for row in rows for name in row["models"]})
    members = [[names.index(name) for name in row["models"]] for row in rows]
    # The gap itself is a norm over all tokens of a text, and texts differ in length.
    truth = [row["gap_relative"] for row in rows]
    heads = "predictor", "rank correlation", "lead over distance", "gap / predictor"
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- |"]
    for key, words in PREDICTORS.items():
        values = [row[key] for row in rows]
        rng = np.random.default_rng(0)
        rank = rank_correlation(values, truth, members=members, rng=rng)
        size = size_ratio(truth, values, members=members, rng=rng)
        lead = "-"
        if key != "distance":
            rival = [row["distance"] for row in rows]
            lead = written(
                rank_correlation_lead(
                    values, truth, rival=rival, members=members, rng=rng
                )
            )
        lines.append(f"| {words} | {written(rank)} | {lead} | {written(size)} |")
    lines += ["", "| nodes: prediction | rank correlation | ratio | spread |"]
    lines.append("| --- | --- | --- | --- |")
    for name in ("paper", "uniform", "density", "data-free"):
        whole = [
            node
            for row in rows
            for node in row["nodes"]
            if node["prediction"] == name and node["layer"] is None
        ]
        cells = [
            f"{np.median([node[key] for node in whole]):.2f}"
            for key in ("rank_correlation", "ratio", "spread")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--stored", action="store_true")
    options = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if not options.stored:
        done = {tuple(row["models"]) for row in rows}
        models = sorted(path.parent for path in options.models.glob("*/finetune.json"))
        for pair in combinations(models, 2):
            if tuple(path.name for path in pair) not in done:
                rows.append(measured(pair, options.data, options.samples))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                print(len(rows), *rows[-1]["models"], rows[-1]["gap"], flush=True)
    print(tables(rows))


if __name__ == "__main__":
    main()
