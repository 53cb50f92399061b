"""What second derivatives cost, and how well pairs foretell larger merges.

    python benchmarks/second_order.py [pools] [parts] [costs] [memory]

Writes results/second_order.json beside this file, section by section.

Pools: the embedded digits fine-tunes, 128 images. Costs: ViT-B/32 and MiniLM-L6 in
their configured widths with random weights, on one thread; medians of interleaved runs
over that of one forward pass, and peak memory above that of model and directions, each
kind in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from resource import getpagesize
from statistics import median
from threading import Event, Thread
from time import perf_counter

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from mloss.batches import Batch
from mloss.curvature import (
    Candidate,
    Pool,
    best_weights,
    confirm,
    explain_gap,
    gap_pool,
    in_words,
    second_derivative,
)
from mloss.digits import load_digits_models
from mloss.outputs import flat_output

RESULTS = Path(__file__).parent / "results" / "second_order.json"
RUNS = 3
KINDS = {
    "forward pass": {},
    "forward": {"method": "forward"},
    "differences": {"method": "differences"},
    "forward, two directions": {"method": "forward", "two": True},
    "differences, two directions": {"method": "differences", "two": True},
}
NETWORKS = ("vit-b/32", "minilm-l6")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def network(name: str, dtype: torch.dtype) -> tuple[nn.Module, Batch]:
    """The architecture with random weights, and a few samples."""
    import transformers

    torch.manual_seed(0)
    if name == "vit-b/32":
        config = transformers.CLIPVisionConfig(patch_size=32)
        model = transformers.CLIPVisionModelWithProjection(config)
        batch: Batch = {"pixel_values": torch.randn(4, 3, 224, 224, dtype=dtype)}
    else:
        config = transformers.BertConfig(
            hidden_size=384, intermediate_size=1536, num_hidden_layers=6
        )
        model = transformers.BertModel(config)
        tokens = torch.randint(0, 30000, (8, 32))
        batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return model.to(dtype).eval(), batch


def work(name: str, dtype: str) -> dict[str, Callable[[], object]]:
    """Every kind of run, ready to be called."""
    model, batch = network(name, DTYPES[dtype])
    centre = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    first, second = (
        {k: 0.02 * v.std(correction=0) * torch.randn_like(v) for k, v in centre.items()}
        for _ in range(2)
    )

    def derivative(*, method: str, two: bool = False) -> object:
        return second_derivative(
            model,
            centre,
            batch,
            first=first,
            second=second if two else None,
            method=method,
        )

    def run(kind: str) -> object:
        if kind == "forward pass":
            with torch.no_grad():
                return flat_output(model, centre, batch)
        return derivative(**KINDS[kind])

    return {kind: lambda kind=kind: run(kind) for kind in KINDS}


def peak_memory(name: str, dtype: str, kind: str) -> float:
    """GiB that one run takes above what model and directions take (Linux)."""
    run = work(name, dtype)[kind]
    before, seen, done = resident(), [0], Event()

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(resident())

    watcher = Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (max(seen) - before) / 2**30


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def costs() -> list[dict[str, object]]:
    rows = []
    for name in NETWORKS:
        for dtype in DTYPES:
            runs = work(name, dtype)
            seconds: dict[str, list[float]] = {kind: [] for kind in runs}
            for _ in range(RUNS):
                for kind, run in runs.items():
                    start = perf_counter()
                    run()
                    seconds[kind].append(perf_counter() - start)
            base = median(seconds["forward pass"])
            exact, rough = (runs[kind]() for kind in ("forward", "differences"))
            rows.append(
                {
                    "network": name,
                    "dtype": dtype,
                    "forward_pass_s": base,
                    "time_ratio": {k: median(v) / base for k, v in seconds.items()},
                    "disagreement": ((exact - rough).norm() / exact.norm()).item(),
                }
            )
    return rows


def memory() -> list[dict[str, object]]:
    return [
        {
            "network": name,
            "dtype": dtype,
            "peak_gib": {kind: measured_apart(name, dtype, kind) for kind in KINDS},
        }
        for name in NETWORKS
        for dtype in DTYPES
    ]


def measured_apart(name: str, dtype: str, kind: str) -> float:
    command = [sys.executable, __file__, "--memory", name, dtype, kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # this script itself
    return float(done.stdout.splitlines()[-1])


def random_merges(pool: Pool, *, size: int, equal: bool, count: int = 150):
    rng = np.random.default_rng(size)
    for _ in range(count):
        members = rng.choice(pool.models, size, replace=False).tolist()
        weights = np.full(size, 1 / size) if equal else rng.dirichlet(np.full(size, 4))
        w = tuple(weights.tolist())
        yield Candidate(tuple(members), w, w, pool.among(members).predicted_gap(w))


def pools() -> dict[str, object]:
    """Rank correlation and size of what pools foretell, by method and subset."""
    models = load_digits_models()
    model, data = models.encoder(), models.unlabelled()
    rates = models.recipe.learning_rates
    families = {"all": models.fine_tunes}
    families |= {f"rate {rate:g}": models.experts(rate) for rate in rates}
    rows = []
    for family, tuned in families.items():
        sources = [each.state for each in tuned]
        for method in ("measured", "forward"):
            with tempfile.TemporaryDirectory() as directory:
                centre = models.base if method == "forward" else None
                start = perf_counter()
                pool = gap_pool(
                    model,
                    sources,
                    data=data,
                    directory=Path(directory),
                    method=method,
                    centre=centre,
                )
                seconds = perf_counter() - start
            for size, equal in ((2, True), (3, True), (4, False), (5, True)):
                found = confirm(
                    model,
                    sources,
                    random_merges(pool, size=size, equal=equal),
                    data=data,
                )
                predicted = np.array([c.candidate.predicted_gap for c in found])
                measured = np.array([c.gap for c in found])
                rows.append(
                    {
                        "family": family,
                        "method": method,
                        "models": len(tuned),
                        "size": size,
                        "weights": "equal" if equal else "random",
                        "rank_correlation": float(
                            spearmanr(predicted, measured).statistic
                        ),
                        "size_ratio": float(
                            np.exp(np.log(predicted / measured).mean())
                        ),
                        "pool_s": seconds,
                    }
                )
    return {"prediction": rows, "weights": reweighted(models)}


def reweighted(models) -> dict[str, float]:
    """Measured distance to the equal ensemble, best weights over equal ones."""
    model, data = models.encoder(), models.unlabelled()
    sources = [each.state for each in models.fine_tunes]
    with tempfile.TemporaryDirectory() as directory:
        pool = gap_pool(model, sources, data=data, directory=Path(directory))
    ratios = []
    rng = np.random.default_rng(0)
    for _ in range(100):
        members = tuple(rng.choice(pool.models, 4, replace=False).tolist())
        best = best_weights(pool, members)
        equal = Candidate(members, best.ensemble, best.ensemble, 0.0)
        ours, theirs = (
            confirm(model, sources, [each], data=data)[0].gap for each in (best, equal)
        )
        ratios.append(ours / theirs)
    return {
        "subsets": len(ratios),
        "median": median(ratios),
        "best": min(ratios),
        "worst": max(ratios),
        "better": sum(ratio < 1 for ratio in ratios) / len(ratios),
    }


def digits_parts() -> list[dict[str, object]]:
    """The parts of three merges of two experts, one for each learning rate."""
    models = load_digits_models()
    rows = []
    for rate in models.recipe.learning_rates:
        pair = models.experts(rate)[:2]
        parts = explain_gap(
            models.encoder(),
            [each.state for each in pair],
            data=models.unlabelled(),
            between_blocks=True,
        )
        within = parts.within.tolist()
        rows.append(
            {
                "pair": [each.name for each in pair],
                "gap": parts.gap,
                "second_order": parts.second_order,
                "remainder": parts.remainder,
                "within": sum(within),
                "activation": sum(
                    share
                    for group, share in zip(parts.groups, within, strict=True)
                    if group.role == "activation"
                ),
                "words": in_words(parts).splitlines(),
            }
        )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--memory"]:
        print(peak_memory(*sys.argv[2:]))
        return
    sections = {"pools": pools, "parts": digits_parts, "costs": costs, "memory": memory}
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or sections:
        found[name] = sections[name]()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
