"""`python -m theory derive`: what it prints, and how it fails."""

import runpy
import sys

import pytest
import sympy as sp

from theory import __main__ as command
from theory.derivations import DERIVATIONS, Derivation, Step


def test_without_a_name_it_lists_the_derivations(capsys):
    assert command.main(["derive"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(DERIVATIONS)


def test_prints_text_or_latex(capsys):
    assert command.main(["derive", "leaky_relu"]) == 0
    assert "Leaky ReLU against ReLU\n" in capsys.readouterr().out
    assert command.main(["derive", "leaky_relu", "--latex"]) == 0
    assert r"\section*{Leaky ReLU against ReLU}" in capsys.readouterr().out


def test_unknown_name_is_one_line_and_exit_2(capsys):
    assert command.main(["derive", "cubic"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("no derivation 'cubic'; known: relu, ")
    assert printed.err.count("\n") == 1


def test_a_false_derivation_is_not_printed(capsys, monkeypatch):
    false = Step("One is two:", sp.Integer(1), sp.Integer(2))
    wrong = Derivation("wrong", "Wrong", (false,), "nothing.")
    monkeypatch.setitem(DERIVATIONS, "wrong", lambda: wrong)
    assert command.main(["derive", "wrong"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "wrong, step 1" in printed.err


@pytest.mark.parametrize("argv", [["--help"], ["derive", "--help"]])
def test_help_shows_an_example(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    assert stop.value.code == 0
    assert "example: python -m theory derive relu" in capsys.readouterr().out


def test_runs_as_a_module(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["theory", "derive"])
    monkeypatch.delitem(sys.modules, "theory.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("theory", run_name="__main__")
    assert stop.value.code == 0
    assert "relu" in capsys.readouterr().out
