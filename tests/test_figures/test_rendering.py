from pathlib import Path

import pytest
from matplotlib.figure import Figure

from figures.rendering import rendered, save


def drawn():
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    return figure


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_figures_give_equal_bytes(kind):
    assert rendered(drawn(), kind=kind) == rendered(drawn(), kind=kind)


def test_the_kinds_are_what_they_say():
    assert rendered(drawn(), kind="png").startswith(b"\x89PNG")
    assert b"<svg" in rendered(drawn(), kind="svg")


def test_the_svg_has_no_date():
    assert b"<dc:date>" not in rendered(drawn(), kind="svg")


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of png, svg, got 'pdf'"):
        rendered(drawn(), kind="pdf")


def test_an_interrupted_write_keeps_the_file_before(monkeypatch, tmp_path):
    (tmp_path / "plate.png").write_text("before")

    def half_written(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(KeyboardInterrupt):
        save(Figure(), "plate", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plate.png"]
    assert (tmp_path / "plate.png").read_text() == "before"


def test_a_file_is_written_elsewhere_and_moved_into_place(monkeypatch, tmp_path):
    write_bytes, written = Path.write_bytes, []

    def noted(path, content):
        written.append(path)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", noted)
    paths = save(Figure(), "plate", out=tmp_path)
    assert [path.name for path in written] == [path.name for path in paths]
    assert set(written).isdisjoint(paths)
