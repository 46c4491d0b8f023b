# Every target runs as it stands on a fresh machine with Python >= 3.11 and make; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On Windows a virtual environment has Scripts\ instead of bin/: use WSL there.

.DEFAULT_GOAL := help
.PHONY: help local test test-container coverage lint format types imports templates requirements \
	openapi sam-local clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What `make local` needs; the rest comes with the first `make test`.
$(VENV)/.local-installed: requirements-local.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-local.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.dev-installed: requirements-dev.txt $(VENV)/.local-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

local: $(VENV)/.local-installed ## Serve on http://127.0.0.1:8000 with an embedded PostgreSQL
	@exec $(BIN)/auth-manager local

test: $(VENV)/.dev-installed ## Run every test that needs neither Docker nor AWS
	$(BIN)/python -m pytest -m "not container" $(ARGS)

coverage: $(VENV)/.dev-installed ## Run the tests and measure branch coverage of src
	$(BIN)/python -m pytest -m "not container" --cov --cov-report=term $(ARGS)

test-container: $(VENV)/.dev-installed ## Test the image and `sam local` (needs Docker)
	$(BIN)/python -m pytest -m container tests/container $(ARGS)

sam-local: $(VENV)/.dev-installed ## Serve the Lambda image by `sam local start-api` (needs Docker)
	@exec $(BIN)/python scripts/sam_local.py

lint: $(VENV)/.dev-installed ## Check style, formatting and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.dev-installed ## Check types
	$(BIN)/mypy

format: $(VENV)/.dev-installed ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

templates: $(VENV)/.dev-installed ## Check template.yaml
	$(BIN)/cfn-lint template.yaml

openapi: $(VENV)/.dev-installed ## Write docs/openapi.json
	$(BIN)/python scripts/write_openapi.py

requirements: ## Compile requirements*.txt from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		pyproject.toml -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		-c requirements.txt --extra local pyproject.toml -o requirements-local.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		-c requirements-local.txt --extra dev --extra container pyproject.toml -o requirements-dev.txt

clean: ## Remove the virtual environment and caches; keeps .local/ with its users
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .aws-sam htmlcov .coverage
