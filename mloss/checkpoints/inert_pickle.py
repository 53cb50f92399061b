"""Pickles read as data: nothing that a pickle names is imported or called.

A pickle is a program whose instructions fetch classes and functions by name and call
them. Here every name becomes an empty class of our own, made for this one reading, and
every call an object that remembers its arguments. What the program would have built can
be looked at; what it would have done is not done.
"""

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from typing import IO, Any, ClassVar, Self

# Modules of the standard library whose classes and functions only make data.
_DATA_MODULES = {
    "_codecs", "argparse", "collections", "copyreg", "datetime", "decimal", "enum",
    "fractions", "functools", "logging", "pathlib", "types", "typing", "uuid",
}  # fmt: skip
_DATA_BUILTINS = {
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr",
    "int", "list", "object", "range", "set", "slice", "str", "tuple",
}  # fmt: skip
_CONTAINERS: dict[str, type] = {
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
}


class Refused(ValueError):  # noqa: N818  # a verdict on a file, not a failure
    """A whole file that is not read; the message ends with what to do."""


class Inert:
    """What a pickle says of an object: the class or function, arguments and state.

    Making one of a function that acts on the machine raises Refused. Of a container
    of unknown class the contents are dropped.
    """

    origin: ClassVar[str] = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: object, **_: object) -> Self:  # noqa: D102  # above
        if _acts(cls.origin):
            raise Refused(
                f"loading it would call {cls.origin}, and nothing of it was run. If "
                "you trust it, torch.save(torch.load(path, weights_only=False)"
                ".state_dict(), new_path) converts it where it was made"
            )
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __call__(self, *arguments: object) -> Self:
        """Call a method, which a pickle fetches from its object by name."""
        return type(self)(*arguments)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Drop what an unknown container would have taken in."""

    extend = add = append


def read_pickle(file: IO[bytes]) -> tuple[Any, list[tuple[Any, ...]]]:
    """The next pickle of a file, and the storages it refers to.

    Each storage is the tuple by which torch.save refers to it. The file is left just
    behind the pickle. Raises Refused for a call that would have acted on the machine,
    and ValueError for bytes that are no pickle.
    """
    reader = _Reader(file, encoding="latin1")
    try:
        root = reader.load()
    except Refused:
        raise
    except Exception as error:
        # Damaged bytes can be any program and fail in any way.
        raise ValueError(f"not a whole pickle: {error}") from error
    return root, reader.storages


class _Reader(pickle._Unpickler):
    """Python's own unpickler, with nothing to call.

    The C one reserves memory for as many objects as a damaged file says it has.
    """

    def __init__(self, file: IO[bytes], *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.storages: list[tuple[Any, ...]] = []

    def find_class(self, module: str, name: str) -> type:
        # torch.save writes the names that Python 2 had.
        module, name = NAME_MAPPING.get(
            (module, name), (IMPORT_MAPPING.get(module, module), name)
        )
        origin = f"{module}.{name}"
        known = _CONTAINERS.get(origin)
        return known or type("Named", (Inert,), {"origin": origin})

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise ValueError(f"unknown reference {pid!r}")
        if pid[0] == "module":  # the source code of a class, in files of old
            return pid[1]
        self.storages.append(pid)
        return pid


def _acts(origin: str) -> bool:
    """Whether a call may do more than make data: a function of Python's library."""
    module, _, name = origin.rpartition(".")
    if module == "builtins":
        return name not in _DATA_BUILTINS
    package = origin.partition(".")[0]
    return package in sys.stdlib_module_names and package not in _DATA_MODULES
