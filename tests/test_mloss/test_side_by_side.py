import pytest
import torch

from mloss import score
from mloss.side_by_side import side_by_side


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads):
    with side_by_side() as each:
        found = list(each(lambda i: torch.tensor([float(i)]).exp().item(), range(50)))
    assert found == [torch.tensor([float(i)]).exp().item() for i in range(50)]
    assert torch.get_num_threads() == threads


def test_a_call_has_one_thread_and_no_gradients(threads):
    def settings(_):
        return torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad(), side_by_side() as each:
        assert set(each(settings, range(8))) == {(1, False)}
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads")
def test_what_a_call_raises_arrives():
    def refuse(i):
        raise ValueError(f"not {i}")

    with side_by_side() as each, pytest.raises(ValueError, match="not 0"):
        list(each(refuse, range(4)))


def test_scores_do_not_depend_on_the_number_of_threads(monkeypatch):
    torch.manual_seed(0)
    base, *sources = (
        torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU()).double()
        for _ in range(4)
    )
    data = torch.randn(50, 3, 4, dtype=torch.float64)
    # Some tiles, whose sums are to be added in one order.
    monkeypatch.setattr("mloss.tally._CACHED", 200)
    before, found = torch.get_num_threads(), []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        found.append(score(base, sources, data).sites[0])
    torch.set_num_threads(before)
    for site in found[1:]:
        assert torch.equal(site.node, found[0].node)
        assert torch.equal(site.prediction, found[0].prediction)
        assert site.layer_stderr == found[0].layer_stderr
