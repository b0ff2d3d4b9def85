# make compare, make test and make lint each set up .venv when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/compare
SHELL := /bin/bash

.PHONY: compare test lint setup

# The main job: MLM, CLM, NSP and MLM+NSP on text that Python brings along. Continues where it stopped; WORKDIR=... starts another.
compare: setup
	$(BIN)/python -m lm.compare --config=experiments/objectives.py:tiny --workdir=$(WORKDIR)

test: setup
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@
