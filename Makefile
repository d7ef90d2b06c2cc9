# Everything runs in .venv at the root, which the first command makes. `make help` lists the commands.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := pyproject.toml constraints.txt $(wildcard service/models/*.[ch])
PIP := $(BIN)/pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve test soak chaos quality check format lint types train bench bench-peers loadtest clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@echo "making .venv and installing pinned packages (6 GB, a few minutes the first time) …"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e .
	@touch $@

# With all that serving needs: whoever begins here compiles the kernels once.
$(VENV)/all.stamp: $(INSTALLED) | $(BIN)/python
	@$(PIP) -e '.[train,load,dev]'
	@touch $(VENV)/serve.stamp $@

serve: $(VENV)/serve.stamp ## serve on 127.0.0.1:8000; QUICKCHANGE_* variables or ARGS="--port 9000" change it
	@exec $(BIN)/quickchange serve $(ARGS)

# With bytecode written, since dozens of tests start processes, each of which would compile all of the project's code anew.
test: $(VENV)/all.stamp ## run the whole test suite in two processes; ARGS="-n 0 tests/engine" runs some of it in this one
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

soak: $(VENV)/all.stamp ## 100,000 requests, every answer checked, while adapters come and go; fails on a wrong one or a leak (minutes)
	@$(BIN)/python -m tests.soak $(ARGS)

chaos: $(VENV)/all.stamp ## kill -9 at every step, full disks, dead databases, an ill S3: a table of what was tried and lost (minutes)
	@$(BIN)/python -m tests.chaos $(ARGS)

check: format lint types test ## what CI runs: format, lint, types, tests

format: $(VENV)/all.stamp ## fail on unformatted code
	@$(BIN)/ruff format --check .

lint: $(VENV)/all.stamp ## ruff
	@$(BIN)/ruff check .

types: $(VENV)/all.stamp ## mypy, strict
	@$(BIN)/mypy

train: $(VENV)/all.stamp ## train every shipped adapter from DATA (default ../shared/data) into runs/
	@$(BIN)/python -m training.train_all $(or $(DATA),../shared/data) --output runs

bench: $(VENV)/all.stamp ## measure what the README claims, against its bars (an hour; ARGS="--only forward,http" takes parts)
	@$(BIN)/python -m loadtest.bench $(ARGS)

$(VENV)/peers.stamp: loadtest/peers.txt $(VENV)/all.stamp
	@echo "making .venv/peers for Infinity and installing pinned packages (6 GB, a few minutes the first time) …"
	@test -x $(VENV)/peers/bin/python || $(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/pip install --disable-pip-version-check -r loadtest/peers.txt
	@touch $@

quality: $(VENV)/all.stamp ## what a lower precision costs the shipped adapters; with data from DATA (default ../shared/data)
	@$(BIN)/python -m training.quality $(or $(DATA),../shared/data) $(ARGS)

bench-peers: $(VENV)/peers.stamp ## measure requests/s, p99 and p50 beside Infinity, in an environment of its own
	@$(BIN)/python -m loadtest.peers $(ARGS)

loadtest: $(VENV)/all.stamp ## locust against the running server: report, CSV, percentiles; fails when a threshold is missed
	@$(BIN)/python -m loadtest.run $(ARGS)

clean: ## remove the environment and everything made
	rm -rf $(VENV) build *.egg-info runs reports .pytest_cache .mypy_cache .ruff_cache .hypothesis
