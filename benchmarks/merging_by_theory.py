"""How much of the merged-vs-ensemble gap do merges by theory remove?

    python benchmarks/merging_by_theory.py digits
    python benchmarks/merging_by_theory.py minilm --data TEXTS --models MODELS

Calibrates on 32, 128 and 512 unlabelled samples and measures the gap, as a fraction of
the ensemble's output, on those and on others; and accuracy beside it, which is another
promise. --models is what minilm_finetunes.py wrote. Stores a row a merge in
`results/merging_by_theory.json`, goes on where it was stopped, and prints the tables of
docs/merging_by_theory.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from mloss.batches import Batch
from mloss.digits import TASKS, load_digits_models
from mloss.digits.examination import answers, features_of_ensemble
from mloss.gap import gap
from mloss.inference import evaluating, forward
from mloss.merging import merge
from mloss.states import State

RESULTS = Path(__file__).parent / "results" / "merging_by_theory.json"
SAMPLES = 32, 128, 512
# The data-free fold needs no samples, only one to see what feeds what.
METHODS = {
    "average": ("average", {}),
    "one scale": ("task_arithmetic", {}),
    "biases, data-free": ("bias_folding_data_free", {}),
    "biases": ("bias_folding", {}),
    "coefficients, block": ("fitted_coefficients", {}),
    "coefficients, tensor": ("fitted_coefficients", {"per": "tensor"}),
    "regression, behind activations": (
        "activation_regression",
        {"layers": "after_activations"},
    ),
    "regression": ("activation_regression", {}),
    "RegMean": ("regmean", {}),
    "regression of coefficients": (
        "activation_regression",
        {"of": "fitted_coefficients"},
    ),
}
ENSEMBLE = "the ensemble itself"
SCALES = [0.8, 0.9, 1.0, 1.1, 1.2]


@dataclass(frozen=True)
class Case:
    """Models to merge, their calibration and test inputs, and how to grade a merge."""

    family: str
    models: list[str]
    base: State
    sources: list[State]
    model: nn.Module
    calibration: Callable[[int], list[Batch]]  # the inputs of a source's task
    task_data: Callable[[int], list[list[Batch]]]
    test: list[Batch]
    accuracy: Callable[[list[State]], float]  # of the mean of these models' outputs
    methods: Sequence[str]


def measured(case: Case, name: str, samples: int) -> dict:
    asked = {
        "family": case.family,
        "models": case.models,
        "method": name,
        "samples": samples,
    }
    if name == ENSEMBLE:
        return asked | {"accuracy": case.accuracy(case.sources)}
    method, options = METHODS[name]
    data = case.calibration(samples)
    began = perf_counter()
    merged = dict(merged_by(case, method, options, data, samples))
    seconds = perf_counter() - began
    held_out, fitted = (
        gap(merged, case.sources, inputs, model=case.model)
        for inputs in (case.test, data)
    )
    return asked | {
        "gap": held_out.relative,
        "gap_stderr": held_out.stderr / held_out.mean * held_out.relative,
        "gap_in_sample": fitted.relative,
        "accuracy": case.accuracy([merged]),
        "seconds": seconds,
    }


def merged_by(
    case: Case, method: str, options: dict, data: list[Batch], samples: int
) -> State:
    given = {"method": method, "model": case.model} | options
    if method == "task_arithmetic":
        # The control: one scale for all, the best on the calibration samples.
        every = [merge(case.base, case.sources, scale=s, **given).state for s in SCALES]
        return min(
            every, key=lambda m: gap(m, case.sources, data, model=case.model).mean
        )
    if method == "bias_folding_data_free":
        given["example"] = data[0]
    else:
        given |= {"data": data, "task_data": case.task_data(samples)}
    return merge(case.base, case.sources, **given).state


def digits_cases() -> Iterator[Case]:
    models = load_digits_models()
    model = models.encoder()
    train, test = models.splits["train"], models.splits["test"]
    pairs = [[0, 4], [1, 5]]  # a question and a domain

    for rate in models.recipe.learning_rates:
        experts = models.experts(rate)
        for members in [*pairs, list(range(len(TASKS)))]:
            tasks = [TASKS[i] for i in members]
            q = len(members)

            def of_tasks(samples: int, tasks=tasks, q=q) -> list[list[Batch]]:
                parts = train.images[:samples].chunk(q)
                return [[t.transform(p)] for t, p in zip(tasks, parts, strict=True)]

            def accuracy(states: list[State], members=members) -> float:
                features = features_of_ensemble(model, dict(enumerate(states)))
                with evaluating(model):
                    right = answers(models, features, split="test")
                return right[members].double().mean().item()

            yield Case(
                family=f"digits, {'pairs' if q == 2 else 'all eight'}, rate {rate:g}",
                models=[task.name for task in tasks],
                base=models.base,
                sources=[experts[i].state for i in members],
                model=model,
                calibration=lambda n, of=of_tasks: [
                    torch.cat([batch for (batch,) in of(n)])
                ],
                task_data=of_tasks,
                test=[
                    torch.cat(
                        [t.transform(test.images[i::q]) for i, t in enumerate(tasks)]
                    )
                ],
                accuracy=accuracy,
                methods=[ENSEMBLE, *METHODS],
            )


def minilm_cases(data: Path, models: Path) -> Iterator[Case]:
    from minilm_finetunes import PRETRAINED, Task, prepared
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from mloss.given_models import runnable

    prepare = prepared(AutoTokenizer.from_pretrained(PRETRAINED))
    for names in (["sst2", "trec6"], ["cr", "sst2", "subj", "trec6"]):
        given = runnable(PRETRAINED, [models / name for name in names])
        tasks = [Task.read(data / f"{name}.jsonl.gz") for name in names]
        heads = [load_file(models / name / "head.safetensors") for name in names]
        q, model = len(names), given.model

        def of_tasks(samples: int, tasks=tasks, q=q) -> list[list[Batch]]:
            return [_batches(t.texts["train"][: samples // q], prepare) for t in tasks]

        def together(samples: int, part: str, tasks=tasks, q=q) -> list[Batch]:
            each = [task.texts[part][: samples // q] for task in tasks]
            turns = [text for texts in zip(*each, strict=True) for text in texts]
            return _batches(turns, prepare)

        def accuracy(
            states: list[State], tasks=tasks, heads=heads, model=model
        ) -> float:
            with evaluating(model):
                right = [
                    _right(model, states, head, task, prepare)
                    for head, task in zip(heads, tasks, strict=True)
                ]
            return sum(right) / len(right)

        yield Case(
            family=f"MiniLM, {q} models",
            models=names,
            base=dict(given.base),
            sources=[dict(source) for source in given.sources],
            model=model,
            calibration=lambda n, of=together: of(n, "train"),
            task_data=of_tasks,
            test=together(128, "test"),
            accuracy=accuracy,
            methods=[ENSEMBLE, *(m for m in METHODS if m != "coefficients, tensor")],
        )


def _batches(texts: list[str], prepare) -> list[Batch]:
    return [prepare(texts[i : i + 32]) for i in range(0, len(texts), 32)]


def _right(model, states, head, task, prepare, *, tested: int = 200) -> float:
    texts, labels = task.texts["test"][:tested], task.labels["test"][:tested]
    found = []
    for batch in _batches(texts, prepare):
        mask = batch["attention_mask"][..., None]
        hidden = sum(forward(model, state, batch) for state in states) / len(states)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        found.append((mean @ head["weight"].T + head["bias"]).argmax(dim=1))
    return (torch.cat(found) == labels).double().mean().item()


def tables(rows: list[dict]) -> str:
    """Change of the gap by number of samples; families side by side where most is."""
    families = {
        family: [row for row in rows if row["family"] == family]
        for family in dict.fromkeys(row["family"] for row in rows)
    }
    lines, at_once = [], {}
    for family, own in families.items():
        counts = sorted({row["samples"] for row in own})
        lines += [
            f"\n**{family}**\n",
            *grid({str(n): (own, n) for n in counts}, change),
        ]
        usual = max(counts, key=lambda n: sum(row["samples"] == n for row in own))
        at_once[f"{family}; {usual}"] = own, usual
    lines += ["\n**change of the gap**\n", *grid(at_once, change)]
    return "\n".join([*lines, "\n**accuracy**\n", *grid(at_once, accuracy)])


def grid(columns: dict[str, tuple[list[dict], int]], cell) -> list[str]:
    """A line a merge; a column is some rows at one number of samples."""
    known = {row["method"] for rows, _ in columns.values() for row in rows}
    lines = [f"| merge | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for method in (name for name in (ENSEMBLE, *METHODS) if name in known):
        cells = (cell(rows, method, samples) for rows, samples in columns.values())
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def change(rows: list[dict], method: str, samples: int) -> str:
    """In per cent of the average's gap, on others and on the calibration samples."""
    keys = ("gap", "gap_in_sample")
    values = [_of(rows, method, samples, key) for key in keys]
    if None in values:
        return "-"
    if method == "average":
        return "{:.1f} ({:.1f}) %".format(*(100 * v for v in values))
    plain = [_of(rows, "average", samples, key) for key in keys]
    changes = [100 * (v / p - 1) for v, p in zip(values, plain, strict=True)]
    return "{:+.1f} ({:+.1f})".format(*changes)


def accuracy(rows: list[dict], method: str, samples: int) -> str:
    value = _of(rows, method, samples, "accuracy")
    return "-" if value is None else f"{100 * value:.1f}"


def _of(rows: list[dict], method: str, samples: int, key: str) -> float | None:
    found = [r for r in rows if (r["method"], r["samples"]) == (method, samples)]
    return _mean(r[key] for r in found) if found and key in found[0] else None


def _mean(values) -> float:
    every = list(values)
    return sum(every) / len(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["digits", "minilm", "stored"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--samples", type=int, nargs="*", default=SAMPLES)
    parser.add_argument("--methods", nargs="*")
    options = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    cases: Iterator[Case] = iter(())
    if options.family == "digits":
        cases = digits_cases()
    if options.family == "minilm":
        cases = minilm_cases(options.data, options.models)
    done = {(r["family"], *r["models"], r["method"], r["samples"]) for r in rows}
    for case in cases:
        for samples in options.samples:
            for name in options.methods or case.methods:
                if (case.family, *case.models, name, samples) in done:
                    continue
                rows.append(measured(case, name, samples))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)
    print(tables(rows))


if __name__ == "__main__":
    main()
