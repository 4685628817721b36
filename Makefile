# Everything happens in .venv, made from the pinned versions in requirements.lock. Nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock
RUNTIME := $(shell find runtime_c devices -type f -not -path "*/build*") 

.PHONY: help demo test quick check instructions estimates format clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo ## Train on real digits, export for this machine, prove the C runtime's bits (writes out/)
	$(BIN)/bfedge train digits --out out/digits.pt
	$(BIN)/bfedge export out/digits.pt --target host --out out/digits-host
	$(BIN)/bfedge verify out/digits-host --checkpoint out/digits.pt

test: $(VENV)/dev ## Run all tests (set up on the first call)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

quick: $(VENV)/dev ## Run the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -m "not slow" --numprocesses 3 $(ARGS)

check: $(VENV)/dev ## Lint, type check and formatting, Python and C
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find runtime_c -name '*.[ch]')

instructions: $(VENV)/dev ## Count executed instructions and write the record (commit it with the change)
	$(BIN)/python -m tests.instructions --update

estimates: $(VENV)/dev ## Fit what `plan` estimates instructions with, and measure its error (40 minutes; commit it with the change)
	$(BIN)/python -m tests.estimates --update

format: $(VENV)/dev ## Format Python and C in place
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find runtime_c -name '*.[ch]')

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: bfedge needs Python 3.10 or newer; choose one with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment (Debian and Ubuntu: package python3-venv)" >&2; exit 1; }

# The C runtime is compiled at installation, so a change in it reinstalls.
$(VENV)/demo: $(BIN)/python pyproject.toml requirements.lock $(RUNTIME)
	$(PIP) --editable '.[train,onnx]'
	@touch $@

$(VENV)/dev: $(BIN)/python pyproject.toml requirements.lock $(RUNTIME)
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/demo
