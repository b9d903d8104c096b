# make run · test · check · demo · bench · soak · lint · clean. Needs Python 3.11 or newer.

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for candidate in $(CANDIDATES); do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$candidate && break; done)

VENV := .venv
BIN := $(VENV)/bin
# Two processes; the tests of a file run in one of them and share its services.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile --editable
ARGS ?=

# Processes start three times as fast from compiled modules, and a service is several of them: where
# the environment forbids to keep those (container images do), what make starts keeps them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := run
.PHONY: run test check demo bench soak lint clean
.DELETE_ON_ERROR:

run: $(VENV)/installed
	@exec $(BIN)/ledger serve $(ARGS)

demo: $(VENV)/installed
	@exec $(BIN)/ledger demo $(ARGS)

bench: $(VENV)/installed
	@$(BIN)/ledger bench ingest $(ARGS)
	@$(BIN)/ledger bench fold $(ARGS)

test: $(VENV)/installed-test
	@$(PYTEST) $(ARGS)

# What needs no database: the tools, and the tests of units and laws.
check: $(VENV)/installed-test
	@$(PYTEST) tests/test_tidy.py tests/property tests/unit $(ARGS)

soak: $(VENV)/installed-test
	@$(BIN)/python -m pytest -m soak $(ARGS)

lint: $(VENV)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "callback-ledger needs Python 3.11 or newer: install it, or name it:" >&2; \
		echo "  make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments: install its venv module" >&2; \
		echo "(Debian, Ubuntu: apt-get install python3-venv) and try again" >&2; exit 1; }

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing callback-ledger into $(VENV) …"
	@$(INSTALL) .
	@touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	@echo "installing what the tests need …"
	@$(INSTALL) '.[test]'
	@touch $@
