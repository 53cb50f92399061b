"""The memory of merging models larger than memory, one tensor at a time.

    python benchmarks/large_merge.py [--layers N] [--folder DIR]

Three bfloat16 sources with the layers of a Llama of 7 B parameters (hidden 4096, MLP
11008, vocabulary 32000), as many as are asked for, are merged by the command `mloss
merge`, each time in a process of its own. Reported are the most that was resident
(VmHWM), the most that was not mapped files (RssAnon, looked at a hundred times a
second), and the time. Four models and the result need 5 * (0.5 + 0.4 N) GB of disk;
they are removed at the end. The memory does not depend on the number of layers.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter

import torch

from mloss.checkpoints import Checkpoint, Entry, save_checkpoint
from mloss.progress import tracked

HIDDEN, MLP, VOCABULARY, HEADS = 4096, 11008, 32000, 32
SOURCES = 3
METHODS = ("average", "ties")
RESULTS = Path(__file__).parent / "results" / "large_merge.json"
NOISE = 1e-3


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    found["model.embed_tokens.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(layers):
        place = f"model.layers.{layer}"
        for name in "qkvo":
            found[f"{place}.self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        for name in ("gate", "up"):
            found[f"{place}.mlp.{name}_proj.weight"] = (MLP, HIDDEN)
        found[f"{place}.mlp.down_proj.weight"] = (HIDDEN, MLP)
        for name in ("input", "post_attention"):
            found[f"{place}.{name}_layernorm.weight"] = (HIDDEN,)
    found["model.norm.weight"] = (HIDDEN,)
    found["lm_head.weight"] = (VOCABULARY, HIDDEN)
    return found


class Model(dict[str, Entry]):
    """Tensors drawn when they are written: the base's, and a source's own noise."""

    def __init__(self, layers: int, source: int) -> None:
        super().__init__()
        for index, (name, shape) in enumerate(shapes(layers).items()):

            def read(
                index: int = index, shape: tuple[int, ...] = shape
            ) -> torch.Tensor:
                own = torch.Generator().manual_seed(index)
                value = 0.02 * torch.randn(shape, generator=own)
                if source:
                    own.manual_seed(1000 * source + index)
                    value += NOISE * torch.randn(shape, generator=own)
                return value.bfloat16()

            self[name] = Entry(shape, torch.bfloat16, read)


def saved(folder: Path, layers: int) -> list[Path]:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }
    places = [folder / str(index) for index in range(SOURCES + 1)]
    for index, place in enumerate(tracked(places, "making models")):
        model = Checkpoint(
            str(place), Model(layers, index), "transformers", config, None
        )
        save_checkpoint(model, model, place)
    return places


def measured(command: list[str]) -> dict[str, float]:
    start = perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  # its own words
    anonymous, resident, done = [0], [0], Event()

    def watch() -> None:
        while not done.wait(0.01):
            anonymous[0] = max(anonymous[0], kilobytes(process.pid, "RssAnon"))
            resident[0] = max(resident[0], kilobytes(process.pid, "VmHWM"))

    watcher = Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise RuntimeError(f"{command} ended with {status}")
    return {
        "resident_gb": round(1024 * resident[0] / 1e9, 3),
        "not_mapped_gb": round(1024 * anonymous[0] / 1e9, 3),
        "seconds": round(perf_counter() - start, 1),
    }


def kilobytes(process: int, kind: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith(kind)]
    return int(lines[0].split()[1]) if lines else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as folder:
        places = saved(Path(folder), options.layers)
        size = sum(file.stat().st_size for file in places[0].glob("*.safetensors"))
        out = Path(folder) / "merged"
        program = [sys.executable, "-m", "mloss", "merge", *map(str, places)]
        found = {
            name: measured([*program, "--method", name, "--out", str(out), "--force"])
            for name in METHODS
        }
    result = {
        "layers": options.layers,
        "gb_of_a_model": round(size / 1e9, 3),
        "largest_tensor_gb": round(2 * VOCABULARY * HIDDEN / 1e9, 3),
        "threads": torch.get_num_threads(),
        "methods": found,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
