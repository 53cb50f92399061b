"""A directory that appears whole or not at all, and can be gone on with.

It is made in a hidden directory beside its place, `.OUT.unfinished`, which also says
what is being made: another run can go on with that, and with nothing else. One run at a
time holds it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mloss.whole_file import write_whole

# What is made, what it replaces, and what it is made from.
_NEW, _OLD, _PLAN = "new", "old", "plan.json"
# What one run holds, and what says that the most is done.
_LOCK, _DEAR = "lock", "dear"

# Everything that decides what a result is, by names that a person knows.
Plan = Mapping[str, object]


def unfinished_place(out: Path) -> Path:
    """Where a directory, or what a link of that name leads to, is made."""
    whole = out.resolve()
    return whole.parent / f".{whole.name}.unfinished"


def check_left_over(
    out: Path, plan: Plan, *, resume: bool = False, discard: bool = False
) -> None:
    """Raise ValueError where an earlier run left what this one may not go on with.

    With `resume` it may where the plan is the same; with `discard` it may start again.
    Neither it may while the other run goes on.
    """
    place = unfinished_place(out)
    if not place.exists():
        return
    with _held(place):
        if discard:
            return
        if not resume:
            raise ValueError(
                f"{out} was begun and not finished (it is in {place}): go on with "
                "--resume, or start again with --force"
            )
        if _has_begun(place):
            _check_same(place, json.loads(_text(plan)))


@contextmanager
def appearing(
    out: Path, *, plan: Plan | None = None, resume: bool = False
) -> Iterator[Path]:
    """A new directory that takes its name when the block ends well.

    Whatever ends the block otherwise, nothing appears and what was there is still
    there. With a plan what is made so far stays for a run that is to `resume` it, but
    for errors in what was asked for (ValueError, TypeError) before `hold_dear`; else it
    vanishes. Without `resume` an earlier run's is discarded first. Raises ValueError
    while another run makes the same directory.
    """
    out, place = out.resolve(), unfinished_place(out)
    place.mkdir(parents=True, exist_ok=True)
    with _held(place):
        try:
            if not (resume and _has_begun(place)):
                _begin(place, out, plan or {})
            yield place / _NEW
            _replace(out, place / _NEW, place / _OLD)
        except BaseException as error:
            wrong = isinstance(error, ValueError | TypeError)
            if plan is None or (wrong and not (place / _DEAR).exists()):
                _discard(place, out)
            elif isinstance(error, OSError) and error.filename is None:
                error.filename = str(place)  # to write does not say where, to open does
            raise
        _remove(place)


def hold_dear(made: Path) -> None:
    """Let what is made so far stay whatever error ends the block of `appearing`."""
    (made.parent / _DEAR).touch()


@contextmanager
def _held(place: Path) -> Iterator[None]:
    """Keep other runs out of a place. Raises ValueError where one is in it."""
    taken = f"another run is writing {place}: wait for it, or end it"
    try:
        lock = (place / _LOCK).open("a")
    except FileNotFoundError:  # the other run has just ended and removed the place
        raise ValueError(taken) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(taken) from None
        if not _is(place / _LOCK, lock.fileno()):
            raise ValueError(taken)
        yield


def _is(path: Path, file: int) -> bool:
    """Whether a file that is open is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _has_begun(place: Path) -> bool:
    return (place / _NEW).is_dir() and any((place / _NEW).iterdir())


def _begin(place: Path, out: Path, plan: Plan) -> None:
    """Discard what is there, and say what is to be made."""
    _bring_back(place, out)
    _clear(place)
    write_whole(place / _PLAN, _text(plan).encode())
    (place / _NEW).mkdir()


def _replace(out: Path, made: Path, replaced: Path) -> None:
    if out.exists():
        out.rename(replaced)
    try:
        made.rename(out)
    except BaseException:
        if replaced.exists():
            replaced.rename(out)
        raise


def _discard(place: Path, out: Path) -> None:
    _bring_back(place, out)
    _remove(place)


def _remove(place: Path) -> None:
    _clear(place)
    (place / _LOCK).unlink()
    with suppress(OSError):  # another run may have come since
        place.rmdir()


def _clear(place: Path) -> None:
    """Remove everything but the lock."""
    for left in place.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


def _bring_back(place: Path, out: Path) -> None:
    """Give its name back to what was there before a kill between two names."""
    if (place / _OLD).exists() and not out.exists():
        (place / _OLD).rename(out)


def _check_same(place: Path, plan: Plan) -> None:
    """Raise ValueError where something else is being made, or nothing says what."""
    try:
        stated = json.loads((place / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stated = None
    if not isinstance(stated, dict):
        raise ValueError(
            f"{place} does not say what it was begun from: start again with --force"
        )
    for name in {**plan, **stated}:
        if plan.get(name) != stated.get(name):
            raise ValueError(
                f"{place} was begun with another {name}: give the same to go on, or "
                "start again with --force"
            )


def _text(plan: Plan) -> str:
    return json.dumps(plan, indent=2, allow_nan=False) + "\n"
