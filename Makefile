# make paper        every check of the paper, into out/
# make test         lint, format, types and the default test suite
# make test-slow    the same with the slow tests
# make figures, make format, make clean

PYTHON ?= python3
BIN := .venv/bin
# One file of tests at a time on each core, whose libraries keep to one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=loadfile
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: paper test test-slow lint figures format clean

paper: .venv/paper-installed
	$(BIN)/python -m paper_checks --out out

figures: .venv/paper-installed
	$(BIN)/python -m figures --out out/figures

test: lint
	$(PYTEST) -m "not slow"

test-slow: lint
	$(PYTEST)

lint: .venv/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv out

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/paper-installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e .
	touch $@

.venv/test-installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e '.[test]'
	touch $@ .venv/paper-installed
