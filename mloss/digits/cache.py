"""Results that take seconds to compute, kept as safetensors files by their content.

A file's name is a digest of all that decides its tensors: the configuration, the
source of the modules that compute them and the versions of the libraries. A change in
any of them computes afresh.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mloss.tensor_digest import tensor_digest

_LIBRARIES = ("numpy", "scikit-learn", "scipy", "torch")


def cached(
    name: str,
    compute: Callable[[], dict[str, Tensor]],
    *,
    config: Mapping[str, object],
    sources: Iterable[ModuleType],
) -> dict[str, Tensor]:
    """The tensors of `compute`, from an earlier call if nothing has changed since.

    `config` must be what JSON can hold; a package among `sources` stands for all its
    modules. A file whose checksum fails is computed again and replaced. Files lie in
    the directory that the environment variable MLOSS_CACHE names, or else in the
    user's cache. Where that cannot be read or written nothing is kept.
    """
    path = cache_directory() / f"{name}-{_key(config, sources)}.safetensors"
    stored = _read(path)
    if stored is None:
        stored = compute()
        with suppress(OSError):
            _write(path, stored)
    return stored


def group(stored: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Pick the tensors stored as "<name>/<key>", by key."""
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): values
        for key, values in stored.items()
        if key.startswith(prefix)
    }


def cache_directory() -> Path:
    """Where the files lie."""
    return Path(os.environ.get("MLOSS_CACHE") or user_cache_path("mloss"))


def _key(config: Mapping[str, object], sources: Iterable[ModuleType]) -> str:
    versions = {library: version(library) for library in _LIBRARIES}
    code = [_source_digest(module) for module in sources]
    described = json.dumps([config, versions, code], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _source_digest(module: ModuleType) -> str:
    assert module.__file__ is not None, f"{module.__name__} is not a source file"
    path = Path(module.__file__)
    files = sorted(path.parent.rglob("*.py")) if path.stem == "__init__" else [path]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _read(path: Path) -> dict[str, Tensor] | None:
    """The file's tensors, or None where it is absent, damaged or not to be read."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            written = (file.metadata() or {}).get("checksum")
    except (SafetensorError, OSError):
        return None
    return tensors if written == tensor_digest(tensors) else None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Put the whole file under its name at once, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(tensors, metadata={"checksum": tensor_digest(tensors)}))
        os.replace(unfinished, path)  # noqa: PTH105  # the atomic step, named plainly
    except BaseException:
        Path(unfinished).unlink()
        raise
