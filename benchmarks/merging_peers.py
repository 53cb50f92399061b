"""Merging eight sources of full size, beside the peers, in time and in memory.

    python benchmarks/merging_peers.py --peers PYTHON [--rounds 3] [--only NAME ...]

PYTHON is that of an environment with mergekit, fusion-bench and this package. The
models are the vision tower of CLIP ViT-B/32 with random weights, eight sources near a
base, in files that were read just before. Every run is a process of its own, from its
start to its end; runs take turns, one at a time, and medians over the rounds are
compared. Private memory is the most that the process has of its own (`RssAnon`: mapped
files are no copies). The rows called start import what the others of their program
import, and stop.

The floor reads every file once, sums and writes the result. M-TIES takes 128 images of
random pixels; in mergekit it takes keep rates that are given. FusionBench needs 20 GB.
Run it on an idle machine of two cores.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

RESULTS = Path(__file__).parent / "results" / "merging_peers.json"
DENSITY = 0.2
IMAGES, BATCH = 128, 32
PACKAGES = ("mloss", "mergekit", "fusion-bench", "torch", "transformers", "safetensors")

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall_s: float
    cpu_s: float
    private_mib: float


def cost(command: list[str], log: Path) -> Cost:
    """Run a command to its end. Raises RuntimeError where it fails."""
    start, private = perf_counter(), 0
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # the commands of `runs`
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _OFFLINE,
        )
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            private = max(private, private_bytes(process.pid))
            sleep(0.01)
    wall = perf_counter() - start
    if status:
        text = log.read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, private / 2**20)


def private_bytes(pid: int) -> int:
    """Memory of a process that is no file's, 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return 1024 * int(lines[0].split()[1]) if lines else 0


def runs(places: list[Path], folder: Path, peers: str) -> dict[str, list[str]]:
    """The command of each row of the table."""

    def ours(method: str, *options: str) -> list[str]:
        given = [str(place) for place in places]
        out = str(folder / f"mloss {method}")
        return [
            *(sys.executable, "-m", "mloss", "merge", *given, "--method", method),
            *("--out", out, "--force", *options),
        ]

    def mergekit(
        method: str, program: str = "mergekit.scripts.run_yaml", **parameters: object
    ) -> list[str]:
        config = folder / f"{method}.json"
        config.write_text(mergekit_config(places, method, parameters), encoding="utf-8")
        out = str(folder / f"mergekit {method}")
        return [
            *(peers, "-m", program, str(config), out, "--quiet", "--no-copy-tokenizer")
        ]

    def here(python: str, name: str) -> list[str]:
        return [python, __file__, "--run", name, "--folder", str(folder)]

    rates = folder / "rates.safetensors"
    save_some_rates(places[0], rates)
    density = ["--density", str(DENSITY)]
    return {
        "floor": here(sys.executable, "floor"),
        "mloss start": [sys.executable, "-m", "mloss", "merge", "--help"],
        "mloss average": ours("average"),
        "mloss task_arithmetic": ours("task_arithmetic"),
        "mloss ties": ours("ties", *density),
        "mloss dare_ties": ours("dare_ties", *density),
        "mloss m_ties": here(sys.executable, "m_ties"),
        "mergekit start": [peers, "-m", "mergekit.scripts.run_yaml", "--help"],
        "mergekit linear": mergekit("linear"),
        "mergekit task_arithmetic": mergekit("task_arithmetic", normalize=True),
        "mergekit ties": mergekit("ties", density=DENSITY),
        "mergekit dare_ties": mergekit("dare_ties", density=DENSITY),
        "mergekit m_ties": mergekit(
            "m_ties", "mloss.peers.mergekit", density=DENSITY, rates=str(rates)
        ),
        "fusion_bench start": here(peers, "fusion_bench_start"),
        "fusion_bench ties": here(peers, "fusion_bench_ties"),
    }


def mergekit_config(
    places: list[Path], method: str, parameters: dict[str, object]
) -> str:
    """A configuration for mergekit: YAML that is JSON."""
    base, *sources = map(str, places)
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in sources]
    named = {} if method == "linear" else {"base_model": base}
    return json.dumps(
        {
            "merge_method": method,
            "dtype": "float32",
            "models": models,
            "parameters": parameters,
        }
        | named
    )


def save_some_rates(base: Path, path: Path) -> None:
    """Keep rates for the first layer of every MLP, of no meaning."""
    import torch

    from mloss.checkpoints import open_checkpoint
    from mloss.merging.pruning.node_rates import NodeRates

    entries = open_checkpoint(base).entries
    names = [name for name in entries if name.endswith("fc1.weight")]
    nodes = entries[names[0]].shape[0]
    spaced = [torch.linspace(DENSITY - 0.1, DENSITY, nodes) for _ in names]
    keys = {name: (name,) for name in names}
    NodeRates(keys, dict(zip(names, spaced, strict=True))).save(path)


def floor(places: list[Path], out: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    files = [safe_open(file_of(place), framework="pt") for place in places]
    merged = {}
    for name in files[0].keys():  # noqa: SIM118  # no dict
        merged[name] = files[0].get_tensor(name).clone()
        for file in files[1:]:
            merged[name] += file.get_tensor(name)
    out.mkdir(exist_ok=True)
    save_file(merged, file_of(out))


def m_ties(places: list[Path], out: Path) -> None:
    from vit_family import pictures

    from mloss.checkpoints import open_checkpoint, save_checkpoint
    from mloss.merging import merged_lazily

    base, *sources = places
    data = pictures(IMAGES, batch=BATCH)
    state = merged_lazily(base, sources, method="m_ties", density=DENSITY, data=data)
    save_checkpoint(state, open_checkpoint(base), out, overwrite=True)


def fusion_bench_start(*_: object) -> None:
    from fusion_bench.method.ties_merging import ties_merging_utils  # noqa: F401


def fusion_bench_ties(places: list[Path], out: Path) -> None:
    import torch
    from fusion_bench.method.ties_merging.ties_merging_utils import (
        state_dict_to_vector,
        ties_merging,
        vector_to_state_dict,
    )
    from safetensors.torch import load_file, save_file

    base, *sources = (load_file(file_of(place)) for place in places)
    start = state_dict_to_vector(base)
    steps = torch.vstack([state_dict_to_vector(state) for state in sources]) - start
    merged = start + ties_merging(steps, reset_thresh=DENSITY, merge_func="mean")
    out.mkdir(exist_ok=True)
    save_file(vector_to_state_dict(merged, base), file_of(out))


INSIDE = {
    function.__name__: function
    for function in (floor, m_ties, fusion_bench_start, fusion_bench_ties)
}
# Rows that claim one result, and the largest difference between them.
SAME = {
    "average": ("mloss average", "mergekit linear"),
    "task_arithmetic": ("mloss task_arithmetic", "mergekit task_arithmetic"),
    "ties": ("mloss ties", "mergekit ties"),
}


def file_of(place: Path) -> Path:
    return place / "model.safetensors"


def differences(first: Path, second: Path) -> dict[str, float]:
    """Largest difference between two models, and the share of entries beyond 1 ulp."""
    import torch
    from safetensors.torch import load_file

    one, other = (load_file(file_of(place)) for place in (first, second))
    assert one.keys() == other.keys()
    largest, beyond, entries = 0.0, 0, 0
    for name, value in one.items():
        off = (value.double() - other[name].double()).abs()
        ulp = torch.finfo(torch.float32).eps * value.double().abs()
        largest = max(largest, off.max().item())
        beyond += int((off > ulp).sum())
        entries += off.numel()
    return {"largest": largest, "share_beyond_1_ulp": beyond / entries}


def versions(python: str) -> dict[str, str]:
    code = (
        "import json, importlib.metadata as m;"
        f"print(json.dumps({{n: m.version(n) for n in {PACKAGES!r}}}))"
    )
    found = subprocess.run(  # noqa: S603  # of our own making
        [python, "-c", code], check=True, capture_output=True, text=True
    )
    return json.loads(found.stdout)


def measured(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    from vit_family import saved_family

    small = {"width": 96, "mlp": 384, "layers": 2} if options.small else {}
    places = saved_family(folder, **small)
    chosen = {
        name: command
        for name, command in runs(places, folder, options.peers).items()
        if not options.only or name in options.only
    }
    taken = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name, command in chosen.items():
            for place in places:
                file_of(place).read_bytes()
            taken[name].append(cost(command, folder / "log.txt"))
            last = taken[name][-1]
            print(f"{name:26} {last.wall_s:7.1f} s {last.private_mib:7.0f} MiB")
    return {
        "versions": versions(options.peers),
        "rounds": options.rounds,
        "runs": {name: medians(costs) for name, costs in taken.items()},
        "differences": {
            name: differences(*(folder / row for row in rows))
            for name, rows in SAME.items()
            if set(rows) <= set(chosen)
        },
    }


def medians(costs: list[Cost]) -> dict[str, float]:
    return {
        field: median(getattr(each, field) for each in costs)
        for field in ("wall_s", "cpu_s", "private_mib")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", help="the Python that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows alone")
    parser.add_argument("--small", action="store_true", help="try it; store nothing")
    parser.add_argument("--run", choices=INSIDE, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        models = sorted(p for p in options.folder.iterdir() if p.name.isdecimal())
        INSIDE[options.run](models, options.folder / options.run.replace("_", " ", 1))
        return
    if not options.peers:
        parser.error("--peers must be given")
    with TemporaryDirectory() as folder:
        found = measured(options, Path(folder))
    text = json.dumps(found, indent=2) + "\n"
    if options.small or options.only:
        print(text)
    else:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
