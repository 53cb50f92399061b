"""What scoring costs beside its matrix products, in time and in memory.

    python benchmarks/score.py

The vision tower of CLIP ViT-B/32 with random weights, eight sources near it, all read
from disk, and images of random pixels in batches of 32. The limit is the time of the
matrix products alone: those of the merge's forward pass, and the first layer of every
MLP in the base and in each source. Score and limit take turns; medians are compared.
Memory is the process's own (`RssAnon`: mapped files are no copies) at its highest
during the call, above what it was before, in copies of the model. It is measured in
processes of their own. Run it on an idle machine of two cores or more.
"""

import json
import multiprocessing
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter

import torch
from vit_family import (
    HEADS,
    LAYERS,
    MLP,
    PATCH,
    SIZE,
    SOURCES,
    WIDTH,
    pictures,
    saved_family,
)

from mloss import score

RUNS = 3
THREADS = 2
IMAGES = 128
BATCH = 32
RESULTS = Path(__file__).parent / "results" / "score.json"

PATCHES = (SIZE // PATCH) ** 2


def score_seconds(places: list[Path], images: int) -> float:
    data = pictures(images, batch=BATCH)
    start = perf_counter()
    score(places[0], places[1:], data)
    return perf_counter() - start


def product_seconds(images: int) -> float:
    """Time of the matrix products alone, in float32, batch by batch."""
    tokens = BATCH * (PATCHES + 1)
    x, wide = torch.randn(tokens, WIDTH), torch.randn(tokens, MLP)
    square, up = torch.randn(WIDTH, WIDTH), torch.randn(WIDTH, MLP)
    down, patches = torch.randn(MLP, WIDTH), torch.randn(BATCH * PATCHES, 3 * PATCH**2)
    embedding = torch.randn(3 * PATCH**2, WIDTH)
    heads = torch.randn(BATCH * HEADS, PATCHES + 1, WIDTH // HEADS)
    start = perf_counter()
    for _ in range(images // BATCH):
        torch.mm(patches, embedding)
        for _ in range(LAYERS):
            for _ in range(4):
                torch.mm(x, square)
            torch.bmm(torch.bmm(heads, heads.mT), heads)
            for _ in range(1 + SOURCES + 1):
                torch.mm(x, up)
            torch.mm(wide, down)
    return perf_counter() - start


@contextmanager
def peak_memory():
    """The most bytes of its own that the process has within the block, as a list."""
    peak, done = [own_bytes()], Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_bytes())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def own_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


def peak_bytes(places: list[Path], images: int) -> int:
    """Memory of one call above what the process holds before it, data included.

    A call on a small model comes first: what it imports is no part of the answer.
    """
    torch.set_num_threads(THREADS)
    with TemporaryDirectory() as folder:
        tiny = saved_family(Path(folder), width=4 * HEADS, mlp=64, layers=1)
        score(tiny[0], tiny[1:], pictures(1, batch=BATCH))
    data = pictures(images, batch=BATCH)
    before = own_bytes()
    with peak_memory() as peak:
        score(places[0], places[1:], data)
    return peak[0] - before


def in_a_process(places: list[Path], images: int) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_bytes, (places, images))


def main() -> None:
    torch.set_num_threads(THREADS)
    with TemporaryDirectory() as folder:
        places = saved_family(Path(folder))
        copy = (places[0] / "model.safetensors").stat().st_size
        score_seconds(places, BATCH)
        counts = (IMAGES // 4, IMAGES // 2, IMAGES)
        ours = {count: [] for count in counts}
        limit = []
        for _ in range(RUNS):
            limit.append(product_seconds(IMAGES))
            for count in counts:
                ours[count].append(score_seconds(places, count))
        memory = {
            f"{sources} sources, {images} images, copies": in_a_process(
                places[: sources + 1], images
            )
            / copy
            for sources, images in [
                (SOURCES, IMAGES // 4),
                (SOURCES, IMAGES),
                (2, IMAGES),
            ]
        }
    found = {
        "rounds": RUNS,
        "products alone, s": median(limit),
        **{f"score of {n} images, s": median(ours[n]) for n in counts},
        "score / products": median(ours[IMAGES]) / median(limit),
        **memory,
    }
    for label, value in found.items():
        print(f"{label:34} {value:.3g}")
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
