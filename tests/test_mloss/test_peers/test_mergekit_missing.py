import sys

from mloss.peers import mergekit


def test_without_mergekit_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mergekit.scripts", None)
    assert mergekit.main(["merge.yml", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'mloss[mergekit]'" in line
