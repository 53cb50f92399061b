import argparse
import json

import numpy as np
import pytest

from simulate.network_command import add_network_command, all_widths
from simulate.networks import FEEDS, measure_networks, over_networks


@pytest.fixture
def run():
    parser = argparse.ArgumentParser(prog="python -m simulate")
    add_network_command(parser.add_subparsers(required=True))

    def main(*arguments):
        options = parser.parse_args(["network", *arguments])
        return options.run(options)

    return main


SMALL = ("--widths", "4,6,5,2", "--networks", "5", "--inputs", "3", "--seed", "7")


def test_json_holds_what_was_measured(run, capsys):
    assert run(*SMALL, "--activation", "gelu", "--sigma", "0.2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    found = measure_networks(
        (4, 6, 5, 2),
        0.2,
        activation="gelu",
        networks=5,
        inputs=3,
        rng=np.random.default_rng(7),
    )
    gap = over_networks(found.gap)
    assert printed["widths"] == [4, 6, 5, 2]
    assert printed["gap"] == [gap.value, gap.stderr]
    for column, feed in enumerate(FEEDS):
        node = over_networks(found.node_mloss[:, column])
        pairs = np.array(printed["node_mloss"][feed])
        np.testing.assert_array_equal(pairs[:, 0], node.value)
        np.testing.assert_array_equal(pairs[:, 1], node.stderr)
        assert 0 <= printed["mloss_share"][feed][0] <= 1.5


def test_the_table_has_a_row_for_every_layer(run, capsys):
    assert run(*SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "widths 4, 6, 5, 2"
    assert sum(line.startswith("  layer 2") for line in lines) == 3
    assert lines[-1].startswith("share of the gap")


def test_without_a_gap_there_is_no_share(run, capsys):
    assert run(*SMALL, "--q", "1") == 0
    assert "share" not in capsys.readouterr().out


def test_one_width_is_every_width():
    assert all_widths([8], 2) == [8, 8, 8, 8]
    assert all_widths([8], None) == [8] * 6
    assert all_widths([3, 8, 1], None) == [3, 8, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "0"], "--depth must be at least 1, got 0"),
        (["--widths", "3,4,2", "--depth", "1"], "--depth goes with a single width"),
        (["--widths", "3,4"], "widths must name inputs, hidden layers and outputs"),
        (["--sigma", "-1"], "sigma must be"),
        (["--activation", "reul"], "activation must be one of relu,"),
        (["--networks", "1"], "networks must be at least 2, got 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_one_line(run, capsys, arguments, message):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"python -m simulate network: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--widths", "3,x"], "must be whole numbers with commas between them"),
        (["--seed", "-1"], "must be a whole number >= 0, got '-1'"),
    ],
)
def test_what_cannot_be_read_is_refused(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
