# `make help` lists what there is. Every target builds .venv first, where it is not there.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help demo test test-quick lint format types check bench docs clean venv
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

venv: $(STAMP)  ## .venv with both packages and all that tests and benchmarks need
$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: venv  ## pairs of a short film, a preview, a short training, restored pictures: in demo/
	$(PY) -m pipelines.demo --out demo

test: venv  ## all tests
	$(PY) -m pytest

test-quick: venv  ## the tests that take under 3 s
	$(PY) -m pytest -m "not slow"

lint: venv  ## what ruff has to say; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: venv  ## bring every file into ruff's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: venv  ## mypy
	$(PY) -m mypy

check: lint types test  ## lint, types and all tests: what a pull request must pass

bench: venv  ## one scene against its true exposure (dB) and what a window costs (ratio); a few minutes
	$(PY) benchmarks/realism.py scenes --seeds 1 --speeds 6 --methods plain,dis
	$(PY) benchmarks/speed.py --windows 2 --interps dis --references bidir-dis

docs: venv  ## the documentation site in build/docs; any warning fails
	$(PY) -m pip install -q -c $(CONSTRAINTS) -e '.[docs]'
	$(PY) -m sphinx -W --keep-going -q -b html docs build/docs

clean:  ## remove .venv and what was built
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
