import pytest
from matplotlib.figure import Figure

from figures import __main__ as command
from figures.__main__ import main
from figures.gallery import GALLERY, Plate


@pytest.fixture
def gallery(monkeypatch):
    """Two plates that cost nothing and keep the seeds they were drawn with."""
    seeds = []

    def noted(seed):
        seeds.append(seed)
        return Figure()

    plates = {"first": Plate("One.", noted), "second": Plate("Two.", noted)}
    monkeypatch.setattr(command, "GALLERY", plates)
    return seeds


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_everything_is_drawn_by_default(gallery, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new")]) == 0
    files = ["first.png", "first.svg", "second.png", "second.svg"]
    assert names(tmp_path / "new") == files
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / f) for f in files]
    assert gallery == [0, 0]


def test_only_the_named_are_drawn(gallery, tmp_path):
    assert main(["--out", str(tmp_path), "--seed", "3", "second"]) == 0
    assert names(tmp_path) == ["second.png", "second.svg"]
    assert gallery == [3]


def test_an_unknown_name_is_refused_before_any_drawing(gallery, tmp_path, capsys):
    assert main(["--out", str(tmp_path), "first", "third"]) == 2
    message = capsys.readouterr().err
    assert message == "python -m figures: no figure third; known: first, second\n"
    assert gallery == []
    assert names(tmp_path) == []


@pytest.mark.usefixtures("gallery")
def test_a_negative_seed_is_refused(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--seed", "-1"]) == 2
    assert "--seed must be at least 0, got -1" in capsys.readouterr().err


@pytest.mark.usefixtures("gallery")
def test_an_impossible_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert "cannot be made: File exists" in capsys.readouterr().err


def test_the_map_of_the_printed_error_is_drawn_from_the_theory(tmp_path):
    assert main(["--out", str(tmp_path), "approximation_error"]) == 0
    assert names(tmp_path) == ["approximation_error.png", "approximation_error.svg"]


@pytest.mark.slow
def test_the_whole_gallery_is_drawn(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(GALLERY)


def test_captions_are_sentences():
    assert all(plate.caption.endswith(".") for plate in GALLERY.values())
