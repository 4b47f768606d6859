# `make demo` and `make test` set up all they need in .venv, once. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DEV_STAMP := $(VENV)/.stamp-dev
BUILD_STAMP := $(VENV)/.stamp-build
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test minimal docs check lint types format install dev build-env bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements.txt requirements-train.txt requirements-nodeps.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"v3recon needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --requirement requirements-train.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-nodeps.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(DEV_STAMP): $(BUILD_STAMP) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(BUILD_STAMP): $(STAMP) requirements-build.txt requirements-build-nodeps.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-build.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-build-nodeps.txt
	@touch $@

install: $(STAMP)  ## set up .venv with what reconstruction and training need

dev: $(DEV_STAMP)  ## the same, with test and lint tools

build-env: $(BUILD_STAMP)  ## the same, with the landmark detector that training and building the face model use

demo: $(STAMP)  ## reconstruct the example photo into results/
	$(BIN)/python demo.py --inputpath examples --savepath results

test: $(DEV_STAMP)  ## run the tests
	$(BIN)/python -m pytest

lint: $(DEV_STAMP)  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)  ## pyright, basic
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test  ## lint, types and tests

format: $(DEV_STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV_STAMP)  ## time the steps of a reconstruction
	$(BIN)/python benchmarks/reconstruct.py

minimal: requirements.txt requirements-train.txt requirements-nodeps.txt requirements-dev.txt  ## run the tests with the oldest versions that requirements.txt admits
	test -x .venv-minimal/bin/python || $(PYTHON) -m venv .venv-minimal
	.venv-minimal/bin/python -m pip install --quiet uv
	.venv-minimal/bin/uv pip install --quiet --python .venv-minimal/bin/python --resolution lowest-direct -r requirements.txt -r requirements-train.txt -r requirements-dev.txt
	.venv-minimal/bin/uv pip install --quiet --python .venv-minimal/bin/python --no-deps -r requirements-nodeps.txt -e .
	.venv-minimal/bin/python -m pytest

docs: $(DEV_STAMP)  ## build the documentation site into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache results build dist *.egg-info
