"""State dicts and whole modules in files of torch.save, without running their code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mloss.checkpoints.checkpoint import Entry
from mloss.checkpoints.inert_pickle import Inert
from mloss.checkpoints.safetensors_file import CODES, unmergeable
from mloss.checkpoints.stored_tensors import is_tensor, tensor_reader
from mloss.checkpoints.torch_archive import read_archive

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MOST_MODULES = 100_000
_LONGEST_NAME = 1000


def torch_file(path: Path) -> tuple[dict[str, Entry], Inert | None]:
    """The tensors of a file by name, and the module that was saved whole, if one was.

    A state dict may lie under "state_dict", "model_state_dict" or "model" in a
    dictionary, as training scripts save it. Of a module the parameters and persistent
    buffers are read, as its own state_dict() would give them. Raises ValueError for
    what is damaged, would run code, holds no weights, or numbers that no merge has.
    """
    archive = read_archive(path)
    root = _unwrapped(archive.root)
    entry = tensor_reader(archive)
    entries = {}
    try:
        for name, value in _named_values(root):
            if not isinstance(name, str):
                raise ValueError(f"expected names of tensors, found {name!r}")
            if not is_tensor(value):
                raise ValueError(f"{name!r} is no plain tensor but {_kind(value)}")
            entries[name] = entry(value)
            if (dtype := entries[name].dtype) not in CODES:
                raise ValueError(f"{name!r} {unmergeable(dtype)}")
    except ValueError as error:
        raise ValueError(f"{path} cannot be merged: {error}") from error
    if not entries:
        raise ValueError(f"{path} holds no weights")
    return entries, root if isinstance(root, Inert) else None


def modules(root: Inert) -> Iterator[tuple[str, Inert]]:
    """The modules inside one that was saved whole, by name, as named_modules does."""
    waiting = [("", root)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return
        name, module = waiting.pop()
        if len(name) > _LONGEST_NAME:
            break
        yield name, module
        children = [
            (_joined(name, key), child)
            for key, child in _items(module, "_modules")
            if isinstance(child, Inert)
        ]
        waiting.extend(reversed(children))
    raise ValueError(
        f"more than {_MOST_MODULES} modules, or one with a name of more than "
        f"{_LONGEST_NAME} characters: a module seems to hold itself"
    )


def _unwrapped(root: Any) -> Any:
    for key in _WRAPPERS:
        inner = dict.get(root, key) if isinstance(root, dict) else None
        if isinstance(inner, dict | Inert) and not is_tensor(inner):
            root = inner
    return root


def _named_values(root: Any) -> Iterator[tuple[Any, Any]]:
    """What should be the tensors of a state dict or a module, in their order."""
    if isinstance(root, dict):
        yield from dict.items(root)
    elif not isinstance(root, Inert) or not isinstance(root.state, dict):
        raise ValueError(f"it holds no state dict and no module but {_kind(root)}")
    else:
        for name, module in modules(root):
            passing = dict(_items(module, "_non_persistent_buffers_set"))
            own = _items(module, "_parameters") + _items(module, "_buffers")
            for key, value in own:
                if value is not None and key not in passing:
                    yield _joined(name, key), value


def _items(module: Inert, attribute: str) -> list[tuple[str, Any]]:
    """The named parts of a module, from a dictionary or a set of their names."""
    state = module.state if isinstance(module.state, dict) else {}
    match state.get(attribute):
        case dict() as parts:
            return [(str(key), value) for key, value in dict.items(parts)]
        case set() as names:
            return [(str(name), None) for name in names]
    return []


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _kind(value: object) -> str:
    return repr(value.origin if isinstance(value, Inert) else type(value).__name__)
