from threading import current_thread, main_thread

import pytest
import torch

from mloss import look_ahead as room
from mloss.look_ahead import look_ahead


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def one(_):
    return 1


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_and_torch_keeps_its_threads():
    found = list(look_ahead(lambda i: (i, torch.get_num_threads()), range(9), size=one))
    assert found == [(i, 1) for i in range(9)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_no_more_is_begun_than_may_be_under_way(monkeypatch):
    monkeypatch.setattr(room, "_UNDER_WAY", 2)
    begun = []
    each = look_ahead(lambda i: begun.append(i) or i, range(9), size=one)
    for used, value in enumerate(each):
        assert value == used
        assert len(begun) <= used + 2


@pytest.mark.usefixtures("two_threads")
def test_what_is_too_large_is_worked_on_in_the_calling_thread(monkeypatch):
    monkeypatch.setattr(room, "_UNDER_WAY", 2)
    sizes = [1, 5, 1]
    each = look_ahead(lambda _: current_thread(), range(3), size=sizes.__getitem__)
    assert [thread is main_thread() for thread in each] == [False, True, False]


@pytest.mark.usefixtures("two_threads")
def test_an_error_comes_in_its_turn():
    def fail_at_two(i):
        if i == 2:
            raise ZeroDivisionError
        return i

    each = look_ahead(fail_at_two, range(9), size=one)
    assert [next(each), next(each)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(each)
    assert torch.get_num_threads() == 2
