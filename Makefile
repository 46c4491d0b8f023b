# Every target runs as it stands on a fresh machine with Python >= 3.11 and make; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
# sam asks for a region even to check a template, and reports on its use unless told not to.
SAM := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=eu-central-1 $(TOOLS)/bin/sam
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
# On Windows a virtual environment has Scripts\ instead of bin/: use WSL there.

.DEFAULT_GOAL := help
.PHONY: help local test test-container test-deploy coverage lint format types templates requirements \
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

$(TOOLS)/.installed: requirements-tools.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-tools.txt
	touch $@

local: $(VENV)/.local-installed ## Serve on http://127.0.0.1:8000 with an embedded PostgreSQL
	@exec $(BIN)/auth-manager local

test: $(VENV)/.dev-installed ## Run every test that needs neither Docker nor AWS
	$(BIN)/python -m pytest -m "not container" $(ARGS)

coverage: $(VENV)/.dev-installed ## Run the tests and measure branch coverage of src
	$(BIN)/python -m pytest -m "not container" --cov --cov-report=term $(ARGS)

test-container: $(VENV)/.dev-installed $(TOOLS)/.installed ## Test the image and `sam local` (needs Docker)
	$(BIN)/python -m pytest -m container tests/container $(ARGS)

# MiniStack and the AWS command line, in an environment of their own; not pinned by hash, and not in CI yet.
.venv-ministack/.installed:
	$(PYTHON) -m venv .venv-ministack
	.venv-ministack/bin/python -m pip install --quiet --disable-pip-version-check 'ministack[full]==1.5.33' awscli==1.46.3
	touch $@

test-deploy: $(VENV)/.dev-installed $(TOOLS)/.installed .venv-ministack/.installed ## Test scripts/deploy-lambda.sh against an emulated AWS (needs Docker)
	$(BIN)/python -m pytest -m container tests/deploy $(ARGS)

sam-local: $(VENV)/.local-installed $(TOOLS)/.installed ## Serve the Lambda image by `sam local start-api` (needs Docker)
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

templates: $(VENV)/.dev-installed $(TOOLS)/.installed ## Check the templates, the Dockerfile and the scripts
	$(SAM) validate --lint --template template.yaml
	$(BIN)/cfn-lint template.yaml
	$(BIN)/cfn-lint -i I --regions eu-central-1 us-east-1 -- infra/bootstrap.yaml
	$(BIN)/cfn-lint -i I --regions eu-central-1 us-east-1 -- infra/data.yaml
	$(BIN)/cfn-lint -i I --regions us-east-1 -- infra/edge.yaml
	$(BIN)/yamllint --strict template.yaml infra .yamllint.yaml
	$(TOOLS)/bin/hadolint Dockerfile
	$(TOOLS)/bin/shellcheck scripts/*.sh .ci/run

openapi: $(VENV)/.dev-installed ## Write docs/openapi.json
	$(BIN)/python scripts/write_openapi.py

requirements: $(TOOLS)/.installed ## Compile requirements*.txt from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements.txt
	$(COMPILE) pyproject.toml --constraint requirements.txt --extra local --output-file requirements-local.txt
	$(COMPILE) pyproject.toml --constraint requirements-local.txt --extra dev --output-file requirements-dev.txt
	$(COMPILE) --group tools --output-file requirements-tools.txt

clean: ## Remove the virtual environment and caches; keeps .local/ with its users
	rm -rf $(VENV) $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .aws-sam htmlcov .coverage
