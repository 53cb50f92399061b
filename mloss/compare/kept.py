"""Results that are kept on disk for the next comparison of the same models."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor

from mloss.batches import Batch
from mloss.tensor_digest import tensor_digest

# All that decides a result, in what JSON can hold; None where nothing is kept.
Origin = Mapping[str, object] | None


def kept(
    name: str, compute: Callable[[], dict[str, Tensor]], *, origin: Origin
) -> dict[str, Tensor]:
    """The tensors of `compute`, from an earlier run where one had the same origin."""
    if origin is None:
        return compute()
    # Here, because the embedded network brings scikit-learn along.
    import mloss
    import theory
    from mloss.digits.cache import cached

    config = {**origin, "transformers": _transformers()}
    return cached(name, compute, config=config, sources=(mloss, theory))


def fingerprint_of_batches(batches: Sequence[Batch]) -> list[str]:
    """Digests of all numbers of batches that are mappings."""
    assert all(isinstance(batch, Mapping) for batch in batches), "they have names"
    return [tensor_digest(dict(batch)) for batch in batches]


def _transformers() -> str | None:
    """The version of what most models run in, None where it is not installed."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
