# The commands of the README. Each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
EXAMPLES := $(VENV)/.installed-examples
PYTEST_FLAGS ?= -n 2 --dist worksteal

.PHONY: help demo run test check clean

help:  ## What can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: $(EXAMPLES)  ## Start a grid on this machine, run the examples, print outputs, receipts and the audit
	@$(BIN)/python -m gridx.demo

run: $(STAMP)  ## Open the dashboard: coordinator, worker and screen in one process
	@$(BIN)/gridx-tui

test: $(DEV)  ## Run the tests; those that need a container engine are skipped where there is none
	@$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(DEV)  ## Lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	  "Grid-X needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(STAMP): $(VENV)/bin/python pyproject.toml
	@echo "Installing Grid-X into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(VENV)/bin/python pyproject.toml
	@echo "Installing Grid-X and its test tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(STAMP)

$(EXAMPLES): $(VENV)/bin/python pyproject.toml
	@echo "Installing Grid-X and what its examples use into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[examples]'
	@touch $@ $(STAMP)
