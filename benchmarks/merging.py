"""What merging costs beside reading every file once and writing the result.

    python benchmarks/merging.py [--family DIR] [--runs N]

Eight sources and their base, vision towers of CLIP ViT-B/32 in float32 with random
weights, are merged from files that were read just before, by the command `mloss merge`
in a process that has its libraries loaded. The floor maps all nine files, sums them and
writes the sum. Floor and methods take turns; medians are compared. Memory is the
process's own (`RssAnon`: mapped files are no copies) at its highest during a run. Run
it on an idle machine of two cores or more. `merging_peers.py` compares with others.
"""

import argparse
import json
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter, process_time

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vit_family import SOURCES, saved_family

from mloss.commands import main as mloss

METHODS = ("average", "task_arithmetic", "ties", "dare")
THREADS = 2
RESULTS = Path(__file__).parent / "results" / "merging.json"


def floor(places: list[Path], out: Path) -> None:
    """Read all files once, sum, and write."""
    files = [safe_open(place / "model.safetensors", framework="pt") for place in places]
    first, *others = files
    total = {name: first.get_tensor(name).clone() for name in first.keys()}  # noqa: SIM118  # no dict
    for file in others:
        for name, value in total.items():
            value += file.get_tensor(name)
    out.mkdir(exist_ok=True)
    save_file(total, out / "model.safetensors")


def merged(places: list[Path], out: Path, method: str) -> None:
    models = [str(place) for place in places]
    with redirect_stdout(StringIO()):
        status = mloss(
            ["merge", *models, "--method", method, "--out", str(out), "--force"]
        )
    if status:
        raise RuntimeError(f"{method} ended with {status}")


@contextmanager
def measured(costs: list[dict[str, float]]):
    """Wall and CPU seconds and the most MiB of its own that the process has."""
    peak, done = [own_mib()], Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_mib())

    watcher = Thread(target=watch)
    watcher.start()
    wall, cpu = perf_counter(), process_time()
    try:
        yield
    finally:
        cost = {"wall_s": perf_counter() - wall, "cpu_s": process_time() - cpu}
        done.set()
        watcher.join()
        costs.append(cost | {"private_mib": peak[0]})


def own_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def compared(
    places: list[Path], folder: Path, runs: int
) -> dict[str, dict[str, float]]:
    """Medians over the runs, after one that is not counted."""
    costs: dict[str, list[dict[str, float]]] = {n: [] for n in ("floor", *METHODS)}
    for _ in range(runs + 1):
        with measured(costs["floor"]):
            floor(places, folder / "floor")
        for method in METHODS:
            with measured(costs[method]):
                merged(places, folder / method, method)
    return {
        name: {kind: round(median(c[kind] for c in each[1:]), 2) for kind in each[0]}
        for name, each in costs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, help="where the models are, or are made")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with TemporaryDirectory() as scratch:
        family = options.family or Path(scratch) / "family"
        places = [family / str(index) for index in range(SOURCES + 1)]
        if not places[-1].exists():
            family.mkdir(parents=True, exist_ok=True)
            places = saved_family(family)
        found = compared(places, Path(scratch), options.runs)
    for name, cost in found.items():
        cost["times_the_floor"] = round(cost["wall_s"] / found["floor"]["wall_s"], 2)
        print(f"{name:16}", cost)
    text = json.dumps({"threads": THREADS, "runs": options.runs, "costs": found})
    RESULTS.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
