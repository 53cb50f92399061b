import errno
import json
from contextlib import suppress

import pytest

from mloss.checkpoints.unfinished import (
    appearing,
    check_left_over,
    hold_dear,
    unfinished_place,
)

PLAN = {"method": "ties", "seed": 3}


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def interrupted(out, error=KeyboardInterrupt, *, plan=PLAN, resume=False):
    with suppress(error), appearing(out, plan=plan, resume=resume) as made:
        (made / "first").write_text("1")
        raise error


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_is_gone_on_with(tmp_path, there, error):
    out = tmp_path / "out"
    if there:
        out.mkdir()
        (out / "old").write_text("0")
    interrupted(out, error)
    assert out.exists() == there
    with appearing(out, plan=PLAN, resume=True) as made:
        assert contents(made) == {"first": "1"}
        (made / "second").write_text("2")
    assert contents(tmp_path) == {"out/first": "1", "out/second": "2"}
    assert not unfinished_place(out).exists()


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_wrong_request_leaves_nothing(tmp_path, error):
    interrupted(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_without_a_plan_nothing_is_left(tmp_path):
    interrupted(tmp_path / "out", plan=None)
    assert list(tmp_path.iterdir()) == []


def test_without_resuming_it_begins_again(tmp_path):
    interrupted(tmp_path / "out")
    with appearing(tmp_path / "out", plan=PLAN) as made:
        assert contents(made) == {}


def test_a_left_over_is_refused_unless_it_is_to_be_used(tmp_path):
    out = tmp_path / "out"
    check_left_over(out, PLAN)
    interrupted(out)
    with pytest.raises(ValueError, match=r"begun and not finished .*--resume.*--force"):
        check_left_over(out, PLAN)
    check_left_over(out, PLAN, resume=True)
    check_left_over(out, {}, discard=True)
    with pytest.raises(ValueError, match="begun with another seed"):
        check_left_over(out, PLAN | {"seed": 4}, resume=True)


def test_a_full_disk_says_where(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"), appearing(tmp_path / "out", plan={}):
        raise full
    assert full.filename == str(unfinished_place(tmp_path / "out"))


@pytest.mark.parametrize("resume", [False, True])
def test_what_was_replaced_comes_back_after_a_kill_between_two_names(tmp_path, resume):
    out = tmp_path / "out"
    interrupted(out)
    # A kill after the old directory lost its name and before the new one has it.
    replaced = unfinished_place(out) / "old"
    replaced.mkdir()
    (replaced / "mine").write_text("0")
    if resume:
        with appearing(out, plan=PLAN, resume=True):
            pass
        assert contents(tmp_path) == {"out/first": "1"}
    else:
        interrupted(out, ValueError)
        assert contents(tmp_path) == {"out/mine": "0"}


def test_a_kill_after_the_last_step_leaves_nothing_to_go_on_with(tmp_path):
    out = tmp_path / "out"
    interrupted(out)
    (unfinished_place(out) / "new").rename(out)
    interrupted(out, ValueError, resume=True)
    assert contents(tmp_path) == {"out/first": "1"}


def test_one_run_at_a_time(tmp_path):
    out = tmp_path / "out"
    busy = "another run is writing .*out.unfinished"
    with appearing(out, plan=PLAN) as made:
        (made / "first").write_text("1")
        for how in ({}, {"resume": True}, {"discard": True}):
            with pytest.raises(ValueError, match=busy):
                check_left_over(out, PLAN, **how)
        for resume in (False, True):
            with (
                pytest.raises(ValueError, match=busy),
                appearing(out, plan=PLAN, resume=resume),
            ):
                pass
        assert contents(made) == {"first": "1"}
    assert contents(tmp_path) == {"out/first": "1"}
    assert not unfinished_place(out).exists()


@pytest.mark.parametrize("said", ["", '{"method": "ti', "[]", None])
def test_what_does_not_say_what_it_is_is_not_gone_on_with(tmp_path, said):
    out = tmp_path / "out"
    interrupted(out)
    place = unfinished_place(out)
    if said is None:
        (place / "plan.json").unlink()
    else:
        (place / "plan.json").write_text(said)
    with pytest.raises(ValueError, match="does not say what it was begun from"):
        check_left_over(out, PLAN, resume=True)
    check_left_over(out, PLAN, discard=True)
    (place / "new" / "first").unlink()
    check_left_over(out, PLAN, resume=True)
    interrupted(out, resume=True)
    assert json.loads((place / "plan.json").read_text()) == PLAN


@pytest.mark.parametrize("plan", [{"method": "ties"}, PLAN | {"data": 1}])
def test_what_only_one_plan_has_makes_it_another(tmp_path, plan):
    interrupted(tmp_path / "out")
    with pytest.raises(ValueError, match=r"begun with another (seed|data)"):
        check_left_over(tmp_path / "out", plan, resume=True)


def test_the_plan_is_written_once(tmp_path):
    out = tmp_path / "out"
    interrupted(out)
    plan = unfinished_place(out) / "plan.json"
    written = plan.stat()
    interrupted(out, resume=True)
    assert (plan.stat().st_ino, plan.stat().st_mtime_ns) == (
        written.st_ino,
        written.st_mtime_ns,
    )


def test_what_is_dear_stays_after_any_error(tmp_path):
    out = tmp_path / "out"
    with suppress(ValueError), appearing(out, plan=PLAN) as made:
        (made / "first").write_text("1")
        hold_dear(made)
        raise ValueError
    interrupted(out, ValueError, resume=True)
    with appearing(out, plan=PLAN, resume=True):
        pass
    assert contents(tmp_path) == {"out/first": "1"}


@pytest.mark.parametrize("there", [False, True])
def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path, there):
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link", tmp_path / "far" / "target"
    link.symlink_to(target)
    if there:
        target.mkdir()
        (target / "old").write_text("0")
    with appearing(link) as made:
        assert made.parent.parent == target.parent
        (made / "first").write_text("1")
    assert link.is_symlink()
    assert contents(target) == {"first": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["target"]
