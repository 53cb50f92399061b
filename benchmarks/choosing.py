"""Does agreement with the experts find the merge that is best on labels?

    python benchmarks/choosing.py digits [--draws 5]
    python benchmarks/choosing.py minilm --data TEXTS --models MODELS

The same merges are ranked by `mloss.compare` on unlabelled samples and by their mean
accuracy on other, labelled ones: of the embedded digits models, trained afresh for
each draw at three learning rates, and of the eight MiniLM fine-tunes that
minilm_finetunes.py wrote. Stores `results/choosing.json`, a row a merge and number of
samples; prints the tables of docs/choosing.md, of what is stored where no study is
named.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from scipy.stats import spearmanr
from torch import Tensor

from mloss.commands.spelt_candidates import spelt
from mloss.compare import Candidate, Comparison, compare, read_head
from mloss.digits import TASKS, load_digits_models
from mloss.digits.examination import answers, features_of
from mloss.digits.models import DigitsModels
from mloss.inference import evaluating

RESULTS = Path(__file__).parent / "results" / "choosing.json"
MERGES = (
    "average,task_arithmetic:scale=0.5/1.5/2/3/4/6,ties:density=0.05/0.1/0.2/0.5:scale=1,"
    "ties:density=0.2:scale=0.5/1.5/2/3,dare:density=0.2/0.5,"
    "m_ties:density=0.2/0.4/0.6/0.8:spread=0.1"
)
SAMPLES = {"digits": (8, 32, 128), "minilm": (64,)}
LABELLED = 256
# What merges can be put in order by, larger is better.
ORDERS = {
    "agreement with the experts": lambda row: row["agreement"],
    "divergence from the experts": lambda row: -row["divergence"],
    "gap to the ensemble": lambda row: -row["gap"],
}


def digits(draws: int, merges: Sequence[Candidate]) -> Iterator[dict]:
    for draw in range(draws):
        models = load_digits_models(seed=draw)
        for rate in models.recipe.learning_rates:
            yield from digits_rows(models, merges, rate=rate, draw=draw)


def digits_rows(
    models: DigitsModels, merges: Sequence[Candidate], *, rate: float, draw: int
) -> Iterator[dict]:
    chosen = torch.randperm(
        len(models.splits["validation"].digits),
        generator=torch.Generator().manual_seed(draw),
    )
    images = models.splits["validation"].images[chosen]
    model = models.encoder()
    for samples in SAMPLES["digits"]:
        found = compare(
            models.base,
            [expert.state for expert in models.experts(rate)],
            task_data=[task.transform(images[:samples]) for task in TASKS],
            methods=merges,
            heads=[models.heads[task.name].logits for task in TASKS],
            model=model,
            data=models.unlabelled(),
        )
        for outcome, row in rows(found, samples):
            with evaluating(model):
                features = features_of(model, outcome.merged())
                right = answers(models, features, split="test")
            accuracy = right.double().mean().item()
            yield row | {"pool": f"{rate:g}, draw {draw}", "accuracy": accuracy}


def minilm(data: Path, pool: Path, merges: Sequence[Candidate]) -> Iterator[dict]:
    from minilm_finetunes import PRETRAINED, Task, prepared
    from transformers import AutoTokenizer

    from mloss.compare.agreement import rows as outputs
    from mloss.compare.pooling import pooled
    from mloss.given_models import runnable
    from mloss.states import state_of

    sources = sorted(path.parent for path in pool.glob("*/finetune.json"))
    tasks = [Task.read(data / f"{path.name}.jsonl.gz") for path in sources]
    heads = [read_head(path / "head.safetensors") for path in sources]
    prepare = prepared(AutoTokenizer.from_pretrained(PRETRAINED))

    def texts(task: Task, start: int, end: int) -> list[dict[str, Tensor]]:
        chosen = task.texts["test"][start:end]
        return [prepare(chosen[i : i + 32]) for i in range(0, len(chosen), 32)]

    (samples,) = SAMPLES["minilm"]
    tested = [texts(task, samples, samples + LABELLED) for task in tasks]
    labels = [task.labels["test"][samples : samples + LABELLED] for task in tasks]
    given = runnable(PRETRAINED, sources)

    def accuracy(merged: dict[str, Tensor]) -> float:
        state = state_of(runnable(PRETRAINED, [merged], model=given.model).sources[0])
        with evaluating(given.model), pooled(given.model):
            right = [
                head(outputs(given.model, state, each)).argmax(dim=1) == label
                for head, each, label in zip(heads, tested, labels, strict=True)
            ]
        return sum(one.double().mean().item() for one in right) / len(right)

    found = compare(
        PRETRAINED,
        sources,
        task_data=[texts(task, 0, samples) for task in tasks],
        methods=merges,
        heads=heads,
        data=[batch for task in tasks for batch in texts(task, 0, 16)],
    )
    for outcome, row in rows(found, samples):
        yield row | {
            "pool": f"{len(sources)} tasks",
            "accuracy": accuracy(outcome.merged()),
        }


def rows(found: Comparison, samples: int) -> Iterator[tuple]:
    apart = {lead.over: lead.separated for lead in found.leads}
    for outcome in found.outcomes:
        yield (
            outcome,
            {
                "merge": outcome.name,
                "samples": samples,
                "agreement": outcome.agreement.value,
                "interval": [outcome.agreement.low, outcome.agreement.high],
                "divergence": outcome.divergence,
                "gap": outcome.gap.relative,
                "within_noise": not apart.get(outcome.name, False),
            },
        )


def summary(rows: list[dict]) -> list[dict]:
    """Of each order: its rank correlation with accuracy, and what its first choice
    loses against the best, a row for each pool."""
    found = []
    for (samples, pool), group in grouped(rows, "samples", "pool"):
        accuracies = [row["accuracy"] for row in group]
        noise = [row["accuracy"] for row in group if row["within_noise"]]
        for order, key in ORDERS.items():
            first = max(group, key=key)
            found.append(
                {
                    "samples": samples,
                    "pool": pool,
                    "order": order,
                    "correlation": spearmanr([key(r) for r in group], accuracies)[0],
                    "loss": max(accuracies) - first["accuracy"],
                    "chosen": first["merge"],
                    "merges": len(group),
                    "best_within_noise": max(noise) == max(accuracies),
                    "within_noise": len(noise),
                    "span": max(noise) - min(noise),
                }
            )
    return found


def grouped(rows: list[dict], *names: str) -> Iterator[tuple]:
    def key(row: dict) -> tuple:
        return tuple(row[name] for name in names)

    for value, group in groupby(sorted(rows, key=key), key=key):
        yield value, list(group)


def table(rows: list[dict]) -> str:
    lines = [
        "| samples a task | order | rank correlation | points lost by first choice |",
        "| ---: | --- | --- | --- |",
    ]
    for (samples, order), group in grouped(summary(rows), "samples", "order"):
        correlations = [one["correlation"] for one in group]
        losses = [100 * one["loss"] for one in group]
        lines.append(
            f"| {samples} | {order} | {spread(correlations)} | {spread(losses)} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def noise(rows: list[dict]) -> str:
    lines = []
    for (samples,), group in grouped(summary(rows), "samples"):
        pools = [one for one in group if one["order"] == next(iter(ORDERS))]
        held = sum(one["best_within_noise"] for one in pools)
        size = median(one["within_noise"] for one in pools)
        span = median(100 * one["span"] for one in pools)
        lines.append(
            f"{samples} samples: {size:g} of {pools[0]['merges']} merges within the "
            f"noise of the leader, {span:.1f} points of accuracy apart (medians); the "
            f"most accurate is among them in {held} of {len(pools)} pools"
        )
    return "\n".join(lines)


def by_rate(rows: list[dict]) -> str:
    """Rank correlation with accuracy at each learning rate, at most samples."""
    most = max(SAMPLES["digits"])
    found = [
        one | {"rate": float(one["pool"].partition(",")[0])}
        for one in summary(rows)
        if one["samples"] == most
    ]
    lines = [
        f"| learning rate | {' | '.join(order.split()[0] for order in ORDERS)} |",
        "| --- | --- | --- | --- |",
    ]
    for (rate,), group in grouped(found, "rate"):
        each = [
            spread([one["correlation"] for one in group if one["order"] == order])
            for order in ORDERS
        ]
        lines.append(f"| {rate:g} | {' | '.join(each)} |")
    return "\n".join(lines)


def by_merge(rows: list[dict]) -> str:
    """The merges of one pool, best first."""
    lines = [
        "| merge | agreement, % | accuracy, % | divergence | gap |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for row in rows:
        rate, low, high = (100 * x for x in (row["agreement"], *row["interval"]))
        lines.append(
            f"| {row['merge']} | {rate:.1f} ({low:.1f} to {high:.1f}) "
            f"| {100 * row['accuracy']:.1f} | {row['divergence']:.2f} "
            f"| {100 * row['gap']:.0f} % |"
        )
    return "\n".join(lines)


# What is shown of each study beside the orders and the noise.
DETAILS = {"digits": by_rate, "minilm": by_merge}


def study_rows(options: argparse.Namespace) -> Iterator[dict]:
    if options.study == "digits":
        return digits(options.draws, spelt(options.merges))
    return minilm(options.data, options.models, spelt(options.merges))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", choices=("digits", "minilm"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--merges", default=MERGES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.study:
        measured = []
        for row in study_rows(options):
            measured.append(row)
            print(row["pool"], row["samples"], row["merge"], flush=True)
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        stored[options.study] = measured
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
    stored = json.loads(RESULTS.read_text())
    for study, rows_of_study in stored.items():
        parts = (table, noise, DETAILS[study])
        print(f"\n{study}", *(part(rows_of_study) for part in parts), sep="\n\n")


if __name__ == "__main__":
    main()
