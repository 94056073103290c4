# make demo   sets everything up and runs the example DAGs against real Docker hosts on this machine
# make test   sets everything up and runs all checks and tests
# make pyz    builds dist/dockerbackup.pyz: the command in one file, without Airflow
# make bench  compares with what a user would otherwise type; BENCH=quick takes minutes, but proves nothing
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# Test processes at once; each has a lab of its own.
JOBS ?= 2
AIRFLOW_VERSION ?=
BIN := $(VENV)/bin

.PHONY: demo test check unit bench pyz lab lab-down constraints clean

$(VENV)/.ready: setup.cfg pyproject.toml tests/constraints.txt tests/setup-venv
	tests/setup-venv "$(PYTHON)" "$(VENV)" "$(AIRFLOW_VERSION)"

demo: $(VENV)/.ready
	$(BIN)/python -m tests.lab.demo

test: check unit

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports

unit: $(VENV)/.ready
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 25

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks $(if $(filter quick,$(BENCH)),--quick)

pyz: $(VENV)/.ready
	tests/build-pyz "$(BIN)" dist/dockerbackup.pyz

lab: $(VENV)/.ready
	$(BIN)/python -m tests.lab up --dir .lab --images all
	$(BIN)/python -m tests.lab env --dir .lab

lab-down: $(VENV)/.ready
	$(BIN)/python -m tests.lab down --dir .lab

constraints:
	tests/lock-constraints

clean:
	rm -rf $(VENV) build dist *.egg-info .demo
