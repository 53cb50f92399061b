"""Files that torch.save wrote: where the pickle and the storages lie in them.

Since torch 1.6 the file is a zip archive, uncompressed: `name/data.pkl` and one member
`name/data/key` a storage. Before, it was five pickles in a row (a magic number, the
version of the protocol, facts on the machine, the object and the list of keys),
followed by the storages, each after its length.
"""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

from mloss.checkpoints.inert_pickle import Refused, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<26xHH")
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class Span:
    """The bytes of one storage in the file."""

    start: int
    size: int


@dataclass(frozen=True)
class Archive:
    """The object that was saved, inert, and the storages of its tensors by key."""

    path: Path
    root: Any
    spans: Mapping[str, Span]


def read_archive(path: Path) -> Archive:
    """Find the object and the storages in a file, without reading the storages.

    Raises ValueError for a file that torch.save did not write, that is damaged, or
    whose pickle would have run code.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as file:
            return _read_stream(path, file)
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:
        # Damaged bytes fail in any way.
        raise ValueError(
            f"{path} cannot be read as a file of torch.save ({error}): "
            "copy or download it again"
        ) from error


def storage_dtype(kind: object) -> torch.dtype:
    """The dtype of a class of storages. Raises ValueError for an unknown one."""
    name = getattr(kind, "origin", "").rpartition(".")[2]
    if name not in _DTYPES:
        raise ValueError(f"storage of unknown type {name or kind!r}")
    return _DTYPES[name]


def _read_zip(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename: info for info in archive.infolist()}
        if any(i.compress_type != zipfile.ZIP_STORED for i in members.values()):
            raise Refused("torch.save compresses nothing; unpack and save it again")
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if not pickles:
            raise ValueError("a zip archive without data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise Refused(
                "it is a program of TorchScript. If you trust it, torch.save("
                "torch.jit.load(path, map_location='cpu').state_dict(), new_path) "
                "converts it"
            )
        order = f"{folder}byteorder"
        if order in members and archive.read(order) != b"little":
            raise Refused("its numbers are big-endian; save it on this machine")
        root, _ = read_pickle(BytesIO(archive.read(pickles[0])))
        spans = {
            name.removeprefix(f"{folder}data/"): _member_span(file, info)
            for name, info in members.items()
            if name.startswith(f"{folder}data/")
        }
    return Archive(path, root, spans)


def _member_span(file: IO[bytes], info: zipfile.ZipInfo) -> Span:
    file.seek(info.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
    if start + info.file_size > file.seek(0, 2):
        raise ValueError(f"its member {info.filename!r} is cut short")
    return Span(start, info.file_size)


def _read_stream(path: Path, file: IO[bytes]) -> Archive:
    if not file.read(2).startswith(b"\x80"):
        raise ValueError("neither a zip archive nor a pickle")
    file.seek(0)
    magic, _ = read_pickle(file)
    if magic != _MAGIC:
        raise ValueError("a pickle, but not one of torch.save")
    protocol, _ = read_pickle(file)
    machine, _ = read_pickle(file)
    if protocol != _PROTOCOL or not machine["little_endian"]:
        raise ValueError("its protocol is unknown or its numbers are big-endian")
    root, storages = read_pickle(file)
    keys, _ = read_pickle(file)
    sizes = {storage[2]: storage_dtype(storage[1]).itemsize for storage in storages}
    spans = {}
    end = path.stat().st_size
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        spans[key] = Span(file.tell(), count * sizes[key])
        if count < 0 or spans[key].start + spans[key].size > end:
            raise ValueError(f"its storage {key!r} is cut short")
        file.seek(spans[key].size, 1)
    return Archive(path, root, spans)
