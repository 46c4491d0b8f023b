# Every target runs as it stands on a fresh machine with Python >= 3.11 and make; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
CHECKOV := .venv-checkov
SCANNERS := .venv-scan
# sam asks for a region even to check a template, and reports on its use unless told not to.
SAM := SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=eu-central-1 $(TOOLS)/bin/sam
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
# On Windows a virtual environment has Scripts\ instead of bin/: use WSL there.

.DEFAULT_GOAL := help
.PHONY: help local test browser test-browser test-container test-deploy coverage lint format types templates checkov requirements \
	openapi commands sam-local pipelines scan image bench bench-quick bench-import profile clean

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

$(SCANNERS)/.installed: requirements-scan.txt
	test -x $(SCANNERS)/bin/python || $(PYTHON) -m venv $(SCANNERS)
	$(SCANNERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-scan.txt
	touch $@

local: $(VENV)/.local-installed ## Serve on http://127.0.0.1:8000 with an embedded PostgreSQL
	@exec $(BIN)/auth-manager local

# Each process has a PostgreSQL of its own, and whole files, whose fixtures stay with it.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile
LOCAL := not container and not templates and not browser

# ARGS may leave none for one of the two runs.
IF_ANY = $(if $(ARGS),|| [ $$? -eq 5 ])

test: $(VENV)/.dev-installed ## Run every test that needs neither Docker nor AWS
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "$(LOCAL) and not alone" $(ARGS) $(IF_ANY)
	$(BIN)/python -m pytest -m "$(LOCAL) and alone" $(ARGS) $(IF_ANY)

coverage: $(VENV)/.dev-installed ## Run the tests, but for those of speed, and measure branch coverage of src
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "$(LOCAL) and not alone" --cov --cov-report=term $(ARGS)

$(VENV)/.browser-installed: requirements-browser.txt $(VENV)/.dev-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-browser.txt
	touch $@

browser: $(VENV)/.browser-installed ## Fetch Chromium for `make test-browser`, where the system has none
	$(BIN)/playwright install chromium $(ARGS)

test-browser: $(VENV)/.browser-installed ## Test the pages in a real browser (needs Chromium)
	$(BIN)/python -m pytest -m browser tests/browser $(ARGS)

test-container: $(VENV)/.dev-installed $(TOOLS)/.installed ## Test the image and `sam local` (needs Docker)
	$(BIN)/python -m pytest -m container tests/container $(ARGS)

# MiniStack and the AWS command line.
.venv-ministack/.installed: requirements-ministack.txt
	test -x .venv-ministack/bin/python || $(PYTHON) -m venv .venv-ministack
	.venv-ministack/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements-ministack.txt
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

$(CHECKOV)/.installed: requirements-checkov.txt
	test -x $(CHECKOV)/bin/python || $(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-checkov.txt
	touch $@

# Every template, for every set of parameters of tests/templates/parameter_sets.py. Python 3.11 or 3.12: Guard has no
# wheel for 3.13.
templates: $(VENV)/.dev-installed $(TOOLS)/.installed $(CHECKOV)/.installed ## Check the templates, the Dockerfile and the scripts
	$(BIN)/python -m pytest -m templates tests/templates $(ARGS)
	$(BIN)/yamllint --strict template.yaml infra .yamllint.yaml
	$(TOOLS)/bin/hadolint Dockerfile
	$(TOOLS)/bin/shellcheck scripts/*.sh .ci/run

checkov: $(VENV)/.dev-installed $(TOOLS)/.installed $(CHECKOV)/.installed ## Of `make templates`, checkov and the IAM lint alone
	$(BIN)/python -m pytest -m templates -k "Checkov or Parliament" tests/templates $(ARGS)

# shellcheck, for the scripts in the workflows, is among the tools.
pipelines: $(SCANNERS)/.installed $(TOOLS)/.installed ## Check the pipelines of GitHub and GitLab
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(SCANNERS)/bin/jactionlint --strict-exit
	$(SCANNERS)/bin/zizmor --quiet --offline --persona pedantic .github
	$(SCANNERS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(SCANNERS)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(SCANNERS)/bin/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml

scan: $(SCANNERS)/.installed ## Look for known weaknesses in code, requirements and image
	scripts/scan.sh $(ARGS)

ARCHITECTURE ?= x86_64
image: $(TOOLS)/.installed ## Build the Lambda image into .aws-sam/, for scripts/deploy-lambda.sh --skip-build (needs Docker)
	$(SAM) build --template template.yaml --parameter-overrides \
		GitSha=$$(git rev-parse --short=12 HEAD) Architecture=$(ARCHITECTURE)
	docker save --output .aws-sam/image.tar \
		$$(awk '$$1 == "ImageUri:" {print $$2}' .aws-sam/build/template.yaml | sort -u)

openapi: $(VENV)/.dev-installed ## Write docs/openapi.json
	$(BIN)/python scripts/write_openapi.py

commands: $(VENV)/.dev-installed ## Write the reference of commands in docs/cli.md
	$(BIN)/python scripts/write_commands.py

requirements: $(TOOLS)/.installed ## Compile requirements*.txt from pyproject.toml
	$(COMPILE) pyproject.toml --output-file requirements.txt
	$(COMPILE) pyproject.toml --constraint requirements.txt --extra local --output-file requirements-local.txt
	$(COMPILE) pyproject.toml --constraint requirements-local.txt --extra dev --output-file requirements-dev.txt
	$(COMPILE) pyproject.toml --constraint requirements-local.txt --extra local --group bench \
		--overrides bench/overrides.txt --output-file requirements-bench.txt
	$(COMPILE) --group tools --output-file requirements-tools.txt
	$(COMPILE) --group scan --output-file requirements-scan.txt
	$(COMPILE) --constraint requirements-dev.txt --group browser --output-file requirements-browser.txt
	$(COMPILE) --group ministack --output-file requirements-ministack.txt
	$(COMPILE) --group checkov --output-file requirements-checkov.txt

.venv-bench/.installed: requirements-bench.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		-r requirements-bench.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

bench: .venv-bench/.installed ## Measure cold start, warm path, server mode and growth (needs Docker for half)
	@.venv-bench/bin/python -m bench $(ARGS)

bench-quick: .venv-bench/.installed ## The same in under two minutes, with fewer rounds and smaller databases
	@.venv-bench/bin/python -m bench --quick $(ARGS)

bench-import: .venv-bench/.installed ## Measure a million users in and out, beside a bare COPY of the same rows
	@.venv-bench/bin/python -m bench.imports $(ARGS)

profile: .venv-bench/.installed ## Write what a cold start imports, and a flame graph of the warm path, to .bench/
	@.venv-bench/bin/python -m bench.profiling

clean: ## Remove the virtual environment and caches; keeps .local/ with its users
	rm -rf $(VENV) $(TOOLS) $(CHECKOV) $(SCANNERS) .venv-ministack .venv-bench .bench .artefacts .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .aws-sam htmlcov .coverage
