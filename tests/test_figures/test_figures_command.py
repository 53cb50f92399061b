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


@pytest.mark.parametrize("seed", ["-1", "one", str(2**31), "9" * 30])
def test_a_seed_out_of_bounds_is_refused(gallery, tmp_path, capsys, seed):
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), "--seed", seed])
    assert stopped.value.code == 2
    assert "--seed: must be from 0 to 2147483647" in capsys.readouterr().err
    assert gallery == []


@pytest.mark.usefixtures("gallery")
def test_an_impossible_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file")]) == 2
    message = capsys.readouterr().err
    assert message == f"python -m figures: {tmp_path / 'file'}: File exists\n"


def test_a_folder_in_place_of_a_file_is_refused_before_any_drawing(
    gallery, tmp_path, capsys
):
    taken = tmp_path / "second.svg"
    taken.mkdir()
    assert main(["--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == f"python -m figures: {taken}: Is a directory\n"
    assert gallery == []


def test_a_cache_that_is_a_file_is_refused_with_one_line(monkeypatch, tmp_path, capsys):
    def unreadable(_):
        (tmp_path / "cache").touch()
        (tmp_path / "cache").mkdir()

    monkeypatch.setattr(command, "GALLERY", {"first": Plate("One.", unreadable)})
    assert main(["--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == f"python -m figures: {tmp_path / 'cache'}: File exists\n"


def test_the_map_of_the_printed_error_is_drawn_from_the_theory(tmp_path):
    assert main(["--out", str(tmp_path), "approximation_error"]) == 0
    assert names(tmp_path) == ["approximation_error.png", "approximation_error.svg"]


@pytest.mark.slow
def test_the_whole_gallery_is_drawn(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(GALLERY)


def test_captions_are_sentences():
    assert all(plate.caption.endswith(".") for plate in GALLERY.values())
