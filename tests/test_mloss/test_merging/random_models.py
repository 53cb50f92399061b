"""States drawn at random, for tests of merging methods."""

import torch

SHAPES = {"up.weight": (7, 5), "up.bias": (7,), "kernel": (2, 3, 2, 2), "scalar": ()}


def random_models(seed, *, q, shapes=None, dtype=torch.float64):
    """A base and q sources at steps of size 1 from it, with an integer entry."""
    generator = torch.Generator().manual_seed(seed)

    def drawn():
        made = {
            key: torch.randn(shape, generator=generator, dtype=torch.float64)
            for key, shape in (shapes or SHAPES).items()
        }
        return {key: value.to(dtype) for key, value in made.items()}

    base = drawn()
    sources = [
        {key: base[key] + step for key, step in drawn().items()} for _ in range(q)
    ]
    steps = {"steps": torch.tensor(7)}
    return base | steps, [source | steps for source in sources]


def random_weights(seed, *, q):
    """Positive weights that sum to 1."""
    raw = torch.rand(q, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    return (raw / raw.sum()).tolist()


def with_equal_steps(base, step, *, q):
    """q sources that are all base + step."""
    source = {key: base[key] + step.get(key, 0) for key in base}
    return [dict(source) for _ in range(q)]
