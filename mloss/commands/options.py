"""Options that the commands have in common."""

import argparse
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

PROGRAM = "mloss"
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Every number of so many digits fits into 64 bits.
_DIGITS = 18


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on, of those that 64 bits hold."""

    def parse(text: str) -> int:
        if len(text) > _DIGITS:
            message = f"must have at most {_DIGITS} digits, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        if not text.isdecimal() or int(text) < least:
            message = f"must be a whole number >= {least}, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse


count = whole(1)


def file_size(text: str) -> int:
    """Bytes from a text such as 5GB, 500MB or 2GiB."""
    found = re.fullmatch(r"(\d+)\s*([kMGT]?)(i?)B?", text)
    if not found or int(found[1]) < 1:
        message = f"must be a size such as 5GB or 500MB, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    number, prefix, binary = found.groups()
    power = " kMGT".index(prefix or " ")
    return int(int(number) * (1024 if binary else 1000) ** power)


def add_models(parser: argparse.ArgumentParser, *, weighted: bool = True) -> None:
    """Add BASE and SOURCE..., what they need to be understood, and their weights."""
    known = (
        "a directory in Hugging Face layout, a file of weights (.safetensors, .pt, "
        ".bin) or an id of the hub"
    )
    parser.add_argument("base", metavar="BASE", help=f"what was fine-tuned: {known}")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="the fine-tuned models, as BASE, or LoRA adapters for it",
    )
    if weighted:
        parser.add_argument(
            "--weights",
            type=_weights,
            metavar="W,...",
            help="merging weights of the sources; they sum to 1 (default: equal)",
        )
    parser.add_argument(
        "--quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the activation of open_clip weights whose file does not say it; true "
        "for OpenAI's",
    )


def add_data(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add --data and how much of it is used."""
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=required,
        metavar="PATH",
        help="unlabelled samples: an image folder, .npz, .txt or .jsonl(.gz); again "
        "for several, drawn from in equal parts",
    )
    parser.add_argument(
        "--samples",
        type=count,
        default=128,
        metavar="N",
        help="how many are used (default: %(default)s, as in the paper)",
    )
    parser.add_argument(
        "--batch",
        type=count,
        default=32,
        metavar="N",
        help="samples that run at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--processor",
        type=Path,
        metavar="DIR",
        help="whose tokenizer or image processor prepares them (default: BASE's)",
    )
    parser.add_argument(
        "--plain-images",
        action="store_true",
        help="only resize images, neither crop nor normalise them, as the authors of "
        "M-Loss do",
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add --json, --seed, --device and --dtype."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="of the order of samples and of what is random (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        type=_device,
        default=torch.device("cpu"),
        help="cpu or cuda (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=list(DTYPES),
        help="what the models run in as they are measured; merging itself is done on "
        "the CPU in what is stored (default: the widest stored, float32 at least)",
    )


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"must be numbers with commas between, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are known")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"{text!r} is not here ({first})") from None
    return device


def check_folder(out: Path | None) -> None:
    """Raise ValueError where a file stands in the way of a directory to write."""
    if out is None:
        return
    there = next(each for each in (out, *out.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"--out {out}: {there} is a file: give a directory")


def check_no_input(out: Path, paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise ValueError where an input lies in the directory that is to be replaced.

    It lies there by its own name or as what a link leads to. What does not exist, such
    as a model of the hub, lies nowhere.
    """
    whole_out = out.resolve()
    for name in paths:
        path = Path(name).expanduser()
        own = path.parent.resolve() / path.name
        if path.exists() and any(
            place.is_relative_to(whole_out) for place in (own, path.resolve())
        ):
            raise ValueError(f"--out {out} holds {name}: give another directory")
