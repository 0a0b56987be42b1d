# Two commands matter: `make demo` and `make test`. Both set up what they need; a machine needs Python 3.11 or newer and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo up down test check tests lock schemas compose-test bench faults clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## the main job: 200 requests of real agencies through all four services, then stop
	$(BIN)/fieldbridge demo

up: $(READY) ## start Kafka, PostgreSQL and the four services, and leave them running
	$(BIN)/fieldbridge up

down: $(READY) ## stop what `make up` started
	$(BIN)/fieldbridge down

test: check tests ## all checks and all tests

check: $(READY) ## ruff, basedpyright, import contracts, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/fieldbridge schemas check

tests: $(READY) ## all tests, in two processes, on real servers that the run starts itself
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

compose-test: $(READY) ## the container stack for real, where there are containers
	$(BIN)/python -m deploy.compose_test

bench: $(READY) ## all benchmarks, about an hour; one of them: make bench ONLY=runtime
	$(BIN)/python -m tests.benchmarks $(or $(ONLY),all)

faults: $(READY) ## the fault campaign, about two hours for ten seeds; with reports in .fieldbridge/faults
	@# Each part runs whatever the one before has found; any finding fails the whole.
	status=0; \
	$(BIN)/python -m tests.faults --plain-faust --broken || status=1; \
	$(BIN)/python -m tests.faults --report .fieldbridge/faults/alone.md || status=1; \
	$(BIN)/python -m tests.faults --seeds $(or $(SEEDS),10) --minutes 10 --rate 28 --requests-per-scenario 400 \
	    --processes 3 --recovery-within 60 || status=1; \
	exit $$status

schemas: $(READY) ## write the AsyncAPI document and the JSON Schemas anew from the models
	$(BIN)/fieldbridge schemas write

lock: $(READY) ## pin every dependency, with hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links pyproject.toml --extra build -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links pyproject.toml --extra build --extra local --extra dev \
	    -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links requirements-peers.txt -o requirements-peers.lock

clean: ## stop what runs, and remove the environment and all data
	@if [ -x $(BIN)/fieldbridge ]; then $(BIN)/fieldbridge down; FIELDBRIDGE_HOME=.fieldbridge/demo $(BIN)/fieldbridge down; fi
	rm -rf $(VENV) .fieldbridge .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=python3.x"; exit 1; }
	@echo "Setting up $(VENV): about a minute the first time"
	@$(PYTHON) -m venv $(VENV) || { \
	    echo "$(PYTHON) cannot make a virtual environment; install its venv package (python3-venv on Debian)."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
