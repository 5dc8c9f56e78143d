# Every target does its own set-up in .venv. The machine needs Python 3.11 or newer and make; the tests also need
# PostgreSQL's and Redis' servers, which `make test` installs where it may and otherwise asks for by name.

.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
PACKAGES := anneal service workers store learning migrations
SOURCES := $(PACKAGES) tests benchmarks examples scripts
INSTALL := $(PY) -m pip --disable-pip-version-check install \
	--constraint constraints.txt --build-constraint constraints.txt
# A database of its own, whatever the caller's environment says.
FRESH := ANNEAL_DATABASE_URL= ANNEAL_BROKER_URL=
# Tests that read the repository rather than run the product.
READING := $(filter-out tests/docs/test_examples.py, \
	$(wildcard tests/test_sizes.py tests/deployment/test_dockerfile.py tests/docs/test_*.py))
BENCHMARKS ?= $(wildcard benchmarks/*.py)
TESTS ?= tests
# Each runs whole files and has its own servers: what a test shares with others stays in one process.
RUNNERS ?= 2
PYTEST = $(PY) -m pytest -n $(RUNNERS) --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.server ## Pretrain, finetune and predict on real data, in about a minute after set-up
	@$(VENV)/bin/anneal demo

.PHONY: up
up: $(VENV)/.server ## Start the service on http://127.0.0.1:8000, until Ctrl-C
	@$(VENV)/bin/anneal up

.PHONY: test
test: $(VENV)/.test test-servers ## The gate: everything `make check` does, then every test that is not long
	@$(MAKE) --no-print-directory check
	$(PYTEST) --no-cov $(TESTS)

# Apart from the gate: to measure the processes that tests start makes them take half as long again.
.PHONY: coverage
coverage: $(VENV)/.test test-servers ## The same tests, and what share of the branches they went through
	$(PYTEST) --cov --cov-report=term --cov-fail-under=90 $(TESTS)

.PHONY: test-slow
test-slow: $(VENV)/.test test-servers ## The long runs that `make test` leaves out
	$(PY) -m pytest -m slow --no-cov --timeout=3600 $(TESTS)

.PHONY: chaos
chaos: $(VENV)/.test test-servers ## Ten minutes of random kills on both columns; writes docs/chaos.md
	$(PY) tests/faults/chaos.py --seconds 600 --report docs/chaos.md

.PHONY: check
check: $(VENV)/.test ## Lint, format, strict types, import contracts, migrations, OpenAPI document, sizes, docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy benchmarks --exclude benchmarks/peers/
	$(VENV)/bin/lint-imports
	@echo "migrations equal the records?"
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && export $(FRESH) ANNEAL_DATA_DIR="$$directory" && \
		$(PY) -m migrations upgrade && $(PY) -m migrations check
	@echo "openapi.json equals the application's?"
	@$(FRESH) $(PY) -m service --openapi | cmp - openapi.json || \
		{ echo "openapi.json is not the application's. Run: make fix"; exit 1; }
	$(PY) -m pytest -q --no-cov $(READING)

.PHONY: fix
fix: $(VENV)/.test ## Mend what can be mended by a program: lint, format, openapi.json
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(FRESH) $(PY) -m service --openapi > $(VENV)/openapi.json
	cp $(VENV)/openapi.json openapi.json

.PHONY: bench
bench: $(VENV)/.bench ## Run the benchmarks (BENCHMARKS=benchmarks/one.py for one)
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(PY) $$file; done

.PHONY: test-servers
test-servers: ## Install PostgreSQL's and Redis' servers for the tests, where they are missing
	@scripts/test_servers.sh

.PHONY: constraints
constraints: $(VENV)/.pip ## Resolve every dependency anew and write constraints.txt
	$(PY) -m pip install --dry-run --ignore-installed --quiet --report $(VENV)/resolved.json \
		-e '.[server,production]' --group test --group check --group bench hatchling editables pip setuptools
	$(PY) scripts/pin.py < $(VENV)/resolved.json > constraints.txt

.PHONY: clean
clean: ## Remove .venv and every cache; keep the data directory .anneal
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed, each a stamp: nothing is installed again until pyproject.toml or constraints.txt changes.
$(VENV)/.pip: scripts/environment.sh constraints.txt
	@scripts/environment.sh $(VENV)
	@touch $@

$(VENV)/.server: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "Installing Anneal and its service in $(VENV), once; PyTorch is the large part."
	@$(INSTALL) --quiet -e '.[server]'
	@touch $@

$(VENV)/.test: $(VENV)/.pip pyproject.toml constraints.txt
	@echo "Installing Anneal, its service and what tests it in $(VENV), once; PyTorch is the large part."
	@$(INSTALL) --quiet -e '.[server,production]' --group test --group check
	@touch $@ $(VENV)/.server

$(VENV)/.bench: $(VENV)/.test
	@$(INSTALL) --quiet --group bench
	@touch $@
