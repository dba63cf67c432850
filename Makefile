# `make demo` runs the main job on an embedded default; `make test` passes the tests. Both build their own .venv.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-quick lint types check bench docs clean venv
venv: $(STAMP)
$(STAMP): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: venv
	$(PY) -m pipelines.demo --out demo

test: venv
	$(PY) -m pytest

test-quick: venv
	$(PY) -m pytest -m "not slow"

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: venv
	$(PY) -m mypy

check: lint types test

docs: venv
	$(PY) -m pip install -q -c $(CONSTRAINTS) -e '.[docs]'
	$(PY) -m sphinx -W --keep-going -q -b html docs build/docs

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
