# Every target does its own set-up: Python >= 3.11 and make are all it takes.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := --disable-pip-version-check --quiet install --require-hashes --no-deps
PIP := -m pip $(INSTALL)

.PHONY: help setup demo dev test check lint types contracts format bench lock clean witnesses dist sbom audit licences docs reference screenshots mutants
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The project itself is editable and unhashed, so it is installed apart, from tools already pinned.
.venv/ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("broker needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP) -r requirements/dev.txt
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-build-isolation --no-deps --editable .
	@touch $@

# Third-party witnesses keep their own pins and cannot disturb ours: the aws CLI and a real OpenID provider.
.venv-awscli/ready: requirements/awscli.txt
	$(PYTHON) -m venv --clear .venv-awscli
	.venv-awscli/bin/python $(PIP) -r requirements/awscli.txt
	@touch $@

.venv-canaille/ready: requirements/canaille.txt
	$(PYTHON) -m venv --clear .venv-canaille
	.venv-canaille/bin/python $(PIP) -r requirements/canaille.txt
	@touch $@

# What hatchling builds with, and nothing else.
.venv-build/ready: requirements/build.txt
	$(PYTHON) -m venv --clear .venv-build
	.venv-build/bin/python $(PIP) -r requirements/build.txt
	@touch $@

# The server's packages and nothing else, no installer either: what the image holds.
.venv-server/ready: .venv/ready requirements/image.txt
	$(PYTHON) -m venv --clear --without-pip .venv-server
	$(BIN)/python -m pip --python .venv-server/bin/python $(INSTALL) -r requirements/image.txt
	@touch $@

setup: .venv/ready  ## create .venv with hash-checked dependencies

witnesses: .venv-awscli/ready .venv-canaille/ready  ## the environments of stock AWS clients and canaille

demo: setup  ## start everything locally and walk through it, step by step
	@$(BIN)/broker dev --tour

dev: setup  ## the same, left running
	@$(BIN)/broker dev

test: setup witnesses  ## the whole test suite
	$(BIN)/pytest

lint: setup  ## formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --no-progress --quiet .github/workflows integrations

types: setup  ## mypy --strict
	$(BIN)/mypy

contracts: setup  ## the layers of docs/architecture.md
	$(BIN)/lint-imports

docs: setup  ## the documents as a site, strictly: every link and anchor
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

reference: setup  ## write docs/reference and the chart's schema and values from the code
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.chart

screenshots: setup  ## take docs/assets/*.png of the running product anew
	$(BIN)/python -m tools.screenshots

licences: setup  ## every package in the image is under a licence that we may ship
	$(BIN)/python -m tools.licences

check: lint types contracts licences docs test  ## what .ci/run calls

format: setup  ## rewrite in the project's style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

bench: setup  ## every benchmark, each ending with one JSON line
	@set -e; for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script $(BENCH_FLAGS); done

mutants: setup  ## which changes of the pure core no unit test notices; takes hours (MUTANTS='broker.access.*' for a part)
	rm -rf mutants
	CI=true $(BIN)/mutmut run $(MUTANTS)
	$(BIN)/python -m tools.mutants

# From the commit and not from the folder, with the commit's time: the same bytes wherever it runs.
dist: .venv-build/ready  ## wheel and sdist of the commit, and their digests
	rm -rf dist/source dist/credential_broker-*
	mkdir -p dist/source
	git archive HEAD | tar -x -C dist/source
	cd dist/source && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		../../.venv-build/bin/python -m hatchling build -t sdist -t wheel -d ..
	rm -rf dist/source
	cd dist && sha256sum credential_broker-* > SHA256SUMS

sbom: setup dist .venv-server/ready  ## dist/broker.cdx.json: what the server is made of (CycloneDX)
	$(BIN)/python -m pip --python .venv-server/bin/python --disable-pip-version-check --quiet \
		install --no-index --no-deps --force-reinstall dist/credential_broker-*.whl
	$(BIN)/python -m tools.sbom .venv-server/bin/python dist/broker.cdx.json

audit: setup  ## known vulnerabilities in what is shipped; asks a service on the network
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
		-r requirements/image.txt -r requirements/client.txt -r requirements/build.txt

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links
lock:  ## renew the pins (needs uv on PATH; add ARGS=--upgrade for newer releases)
	$(UV_COMPILE) $(ARGS) pyproject.toml requirements/build.in --all-extras --no-emit-package credential-broker -o requirements/dev.txt
	$(UV_COMPILE) $(ARGS) pyproject.toml --extra server -o requirements/server.txt
	$(UV_COMPILE) $(ARGS) pyproject.toml --extra server --extra otel -c requirements/dev.txt -o requirements/image.txt
	$(UV_COMPILE) $(ARGS) pyproject.toml -o requirements/client.txt
	$(UV_COMPILE) $(ARGS) requirements/build.in -o requirements/build.txt
	$(UV_COMPILE) $(ARGS) requirements/awscli.in -o requirements/awscli.txt
	$(UV_COMPILE) $(ARGS) requirements/canaille.in -o requirements/canaille.txt

clean:  ## remove the environments and caches
	rm -rf .venv .venv-awscli .venv-canaille .venv-build .venv-server .pytest_cache .mypy_cache .ruff_cache .hypothesis dist mutants
