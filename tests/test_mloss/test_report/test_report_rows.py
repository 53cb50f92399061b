import math
from dataclasses import replace

import pytest
import torch
from report_scores import FIELDS, four_layers, score, site

from mloss.agreement import agreements
from mloss.report import layer_rows, worst_nodes
from mloss.report.agreement_rows import agreement_rows
from mloss.report.layer_names import layer_names
from mloss.report.node_groups import node_groups
from mloss.report.numbers import factor, percent, percent_with_error, short, with_error
from mloss.report.sampling import sampling
from mloss.report.whereabouts import whereabouts


def test_a_row_has_the_numbers_of_its_site():
    scored = four_layers()
    for row, one in zip(
        layer_rows(scored, agreements(scored)), scored.sites, strict=True
    ):
        assert (row.layer, row.activation, row.nodes) == (one.layer_name, "gelu", 2)
        assert (row.mloss, row.stderr) == (one.layer, one.layer_stderr)
        assert row.relative == one.layer_normalized
        assert (row.worst_node, row.worst_mloss) == (1, one.node[1].item())
        assert row.ratios == {
            "paper": pytest.approx(2),
            "uniform": pytest.approx(3),
            "density": pytest.approx(1.5),
            "data-free": None,
        }


def test_shares_add_up_to_one():
    scored = four_layers()
    shares = [row.share for row in layer_rows(scored, ())]
    assert shares == pytest.approx([1 / 11, 1 / 11, 8 / 11, 1 / 11])


def test_layers_without_loss_have_no_share():
    rows = layer_rows(score(site(node=(0.0, 0.0))), ())
    assert [row.share for row in rows] == [None]


def test_an_unknown_error_is_none():
    (row,) = layer_rows(score(site(error=math.inf)), ())
    assert row.stderr is None
    assert all(node.stderr is None for node in worst_nodes(score(site(error=math.inf))))


def test_the_worst_nodes_of_all_layers():
    first, second = site("a", node=(0.1, 0.5, 0.2)), site("b", node=(0.3, 0.4))
    found = worst_nodes(score(first, second), count=3)
    assert [(n.layer, n.node) for n in found] == [("a", 1), ("b", 1), ("b", 0)]
    worst = found[0]
    assert worst.mloss == 0.5
    assert worst.stderr == first.node_stderr[1].item()
    assert (worst.q05, worst.q95) == (0.25, 1.0)
    assert worst.density_prediction == 0.75
    assert worst.times_median == pytest.approx(0.5 / 0.2)
    assert len(worst_nodes(score(first, second), count=99)) == 5


def test_what_a_worst_node_lacks_is_none():
    bare = replace(site(node=(0.0, 0.0, 0.1)), density_prediction=None)
    worst = worst_nodes(score(bare), count=1)[0]
    assert (worst.density_prediction, worst.times_median) == (None, None)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="count must be >= 0, got -1"):
        worst_nodes(four_layers(), count=-1)


def test_agreement_is_laid_out_by_layer_with_all_of_them_last():
    part = replace(site("b"), prediction=None)
    rows = agreement_rows(agreements(score(site("a"), part, site("c"))))
    assert [row.layer for row in rows] == ["a", "b", "c", None]
    ratios = [[None if c is None else c.ratio for c in row.cells] for row in rows]
    assert ratios[0] == [pytest.approx(2), pytest.approx(3), pytest.approx(1.5), None]
    assert ratios[1] == [pytest.approx(2), None, pytest.approx(1.5), None]
    assert rows[-1].cells[1].nodes == 6


def test_no_prediction_makes_no_rows():
    bare = replace(site(), **dict.fromkeys(FIELDS))
    assert agreement_rows(agreements(score(bare))) == ()


@pytest.mark.parametrize(
    ("names", "short_ones", "patterns"),
    [
        (("a.0.fc", "a.1.fc"), ("0", "1"), ("a.*.fc",)),
        (("a.0.fc", "a.1.fc", "head"), ("0", "1", "head"), ("a.*.fc",)),
        (("t.l.0.fc", "v.l.0.fc"), ("t", "v"), ("*.l.0.fc",)),
        (("t.l.0", "v.l.1"), ("t.0", "v.1"), ("*.l.*",)),
        (("0", "2"), ("0", "2"), ()),
        (("a.b.fc",), ("a.b.fc",), ()),
        (("a.0", "a.1", "b.0.c", "b.1.c"), ("a.0", "a.1", "b.0.c", "b.1.c"), ()),
    ],
)
def test_names_keep_what_tells_them_apart(names, short_ones, patterns):
    found = layer_names(names)
    assert tuple(found.short.values()) == short_ones
    assert tuple(found.short) == names
    assert found.patterns == patterns


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((1, 1, 8, 1), "73 % of the M-Loss is in l2."),
        ((1, 4, 5, 1, 1, 1), "69 % of the M-Loss is in l1 to l2."),
        ((3, 3, 4, 3), "spread over the 4 layers; the largest share, 31 %, is in l2."),
        ((7,), "All of the M-Loss is in l0, the only layer scored."),
        ((0, 0), "M-Loss is zero in every layer."),
    ],
)
def test_where_the_loss_is(parts, said):
    sites = [site(f"l{place}", node=(part,)) for place, part in enumerate(parts)]
    assert said in whereabouts(score(*sites))


@pytest.mark.parametrize(
    ("error", "needed", "enough"),
    [(0.01, None, True), (0.1, 512, False), (math.inf, None, False)],
)
def test_whether_samples_are_enough(error, needed, enough):
    sure, unsure = site("sure", error=0.001), site("unsure", error=error)
    found = sampling(score(sure, unsure))
    assert (found.layer, found.enough) == ("unsure", enough)
    assert found.needed == needed or found.needed == pytest.approx(needed, abs=1)


def test_groups_are_means_of_neighbours_the_last_one_smaller():
    wide, narrow = torch.arange(130.0).tolist(), [1.0, 2.0]
    groups = node_groups(score(site("w", node=wide), site("n", node=narrow)))
    assert groups.size == 5
    assert groups.means[0][:2].tolist() == [2.0, 7.0]
    assert len(groups.means[0]) == 26
    assert groups.means[1].tolist() == [1.5]


def test_groups_of_sorted_nodes_fall():
    groups = node_groups(four_layers(), by_loss=True)
    assert groups.size == 1
    assert [row.tolist() for row in groups.means[:1]] == [[0.02, 0.01]]


@pytest.mark.parametrize(
    ("nodes", "size"), [(64, 1), (65, 2), (1536, 50), (3072, 50), (4096, 100)]
)
def test_the_paper_groups_of_fifty_come_from_its_width(nodes, size):
    assert node_groups(score(site(node=[1.0] * nodes))).size == size


def test_numbers_as_they_are_read():
    assert with_error(0.05, 0.00051) == "0.0500 +- 0.0005"
    assert with_error(3.557e-5, None) == "3.56e-05 +- ?"
    assert (short(None), short(123.4)) == ("-", "123")
    assert (percent(0.0046), percent(0.126), percent(1.0), percent(0.0)) == (
        "0.46 %",
        "13 %",
        "100 %",
        "0 %",
    )
    assert percent_with_error(0.126, 0.008) == "13 % +- 0.8 %"
    assert (factor(1.186), factor(101.2), factor(0.0012)) == ("1.19", "101", "0.0012")
