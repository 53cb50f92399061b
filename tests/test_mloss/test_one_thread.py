from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mloss.one_thread import one_thread


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_has_its_threads_back():
    with one_thread():
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_also_after_an_error():
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2


def test_threads_wait_for_each_other():
    inside = []

    def enters():
        with one_thread():
            inside.append(torch.get_num_threads())

    with ThreadPoolExecutor(1) as pool:
        with one_thread():
            waiting = pool.submit(enters)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        waiting.result(timeout=60)
    assert inside == [1]
    assert torch.get_num_threads() == 2


def test_singular_vectors_do_not_depend_on_the_number_of_threads():
    # With two threads and without `one_thread` they differ in their last bits.
    matrix = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))

    def decomposed():
        with one_thread():
            return torch.linalg.svd(matrix, full_matrices=False)

    first = decomposed()
    torch.set_num_threads(1)
    assert all(map(torch.equal, first, decomposed()))
