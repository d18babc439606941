# Every target does its own set-up: a Python of at least 3.11 is all that has to be there.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv from the machine, else our own copy of it, installed by pip.
UV := $(or $(shell command -v uv),build/tools/bin/uv)
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)
# Programs we start find ours first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup demo test test-unit test-node verify generate transcripts bench up down clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.ready  ## the virtual environment, from uv.lock

build/tools/bin/uv:
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --quiet --disable-pip-version-check uv

$(VENV)/.ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --locked --python $(PYTHON) --all-extras --group dev
	@touch $@

demo: setup  ## the main job, for real: a cluster, a run, a sealed model, opened again
	$(BIN)/trainwright-devstack demo

test: setup  ## all tests
	$(BIN)/python -m pytest

test-unit: setup  ## the tests that start nothing
	$(BIN)/python -m pytest tests/unit

test-node: setup  ## whole runs on a kubelet with containerd: docs/devstack.md says what that needs
	$(BIN)/python -m pytest tests/e2e tests/faults --cluster node -o timeout=1800

verify: setup  ## style, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m trainwright_operator.crds --check
	$(BIN)/python -m trainwright_trainer.argument_table --check

generate: setup  ## CRDs, their reference, the table of training arguments, the plain install manifest
	$(BIN)/python -m trainwright_operator.crds
	$(BIN)/python -m trainwright_trainer.argument_table
	helm/render.sh

transcripts: setup  ## what kubectl shows of runs in many states, written anew into tests/testdata/transcripts
	WRITE_TRANSCRIPTS=1 $(BIN)/python -m pytest -q tests/integration/test_transcripts.py

bench: setup  ## figures into benchmarks/results
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

up: setup  ## a cluster on this machine, with S3 server, resource API and the operator
	$(BIN)/trainwright-devstack up --detach

down: setup  ## stop it
	$(BIN)/trainwright-devstack down

clean:  ## remove what was built
	rm -rf build $(VENV)
