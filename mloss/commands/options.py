"""Options that the commands have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

PROGRAM = "mloss"
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            message = f"must be a whole number >= {least}, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse


count = whole(1)


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
