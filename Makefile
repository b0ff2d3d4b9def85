# make compare, make test and make lint create or update .venv first; make test-tpu and make
# setup-tpu do the same with .venv-tpu.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/compare
SHELL := /bin/bash
comma := ,

.PHONY: compare test test-tpu lint setup setup-tpu

# Compares MLM, CLM, NSP and MLM + NSP on text that Python ships with. The same command resumes it;
# WORKDIR=... starts another comparison.
compare: setup
	$(BIN)/python -m lm.compare --config=experiments/objectives.py:tiny --workdir=$(WORKDIR)

test: setup
	$(BIN)/python -m pytest -n 2

# The tests that need the TPU compiler (libtpu, 484 MB; no TPU), in a separate environment.
test-tpu: setup-tpu
	.venv-tpu/bin/python -m pytest tests/tpu

setup-tpu: .venv-tpu/installed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/check_plug_ins.py

setup: $(VENV)/installed

$(VENV)/installed .venv-tpu/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; set PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(@D) || { echo "error: cannot create a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(@D)/bin/python -m pip install -q --disable-pip-version-check -e '.[test$(if $(findstring tpu,$(@D)),$(comma)tpu)]' -c constraints.txt
	@touch $@
