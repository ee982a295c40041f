# make help lists what there is. Everything runs in .venv, which is created when missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# First, so that no process waits at the end for another one's recoveries. Three processes keep two cores busy: recoveries
# wait much, for seconds to pass and for states to follow each other.
LONG_TESTS := tests/faults tests/statemachines tests/properties

.DEFAULT_GOAL := help
.PHONY: help demo faults bench test check audit format lint types snapshots local-up local-down clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "found Python %d.%d, expected 3.11 or later: make PYTHON=/path/to/python3.11 …" % v[:2])'
	@echo "Creating $(VENV) (once; takes a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(READY) ## rehearse a recovery on the embedded AWS; writes build/drill/report.html
	@$(BIN)/python -m localaws drill

faults: $(READY) ## strike recoveries with faults at every call and state; writes build/faults/report.json
	@$(BIN)/python -m localaws faults

bench: $(READY) ## measure the engine, simulate large tables; writes build/bench/report.json and curves.png
	@$(BIN)/python -m bench

test: $(READY) ## run the tests
	@$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(LONG_TESTS) tests

check: $(READY) lint types audit test ## what CI runs: format, lint, types, dependencies, tests

lint: $(READY) ## check format and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

audit: $(READY) ## check dependencies: pins, consistency, known vulnerabilities (AUDIT_REQUIRED=1: fail if unknown)
	@$(BIN)/python scripts/audit.py

types: $(READY) ## check types
	@$(BIN)/mypy

format: $(READY) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

snapshots: $(READY) ## write the snapshots of the state machines anew
	@UPDATE_SNAPSHOTS=1 $(BIN)/pytest -q tests/statemachines/test_snapshots.py

local-up: $(READY) ## start the embedded AWS with the local stack, for practice with the AWS CLI
	@$(BIN)/python -m localaws up

local-down: $(READY) ## stop it
	@$(BIN)/python -m localaws down

clean: ## remove what was built, but not .venv
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
