# `make` prints the targets. Everything that a target needs, it installs; what is slow is cached in ~/.cache/argosy.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
# Tools that Debian does not have, or has too old: `tools/install` puts them there.
export PATH := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/argosy/bin:$(PATH)

##@ Use
.PHONY: run
run: install ## Start the whole of Argosy on this machine, in the foreground; OPEN=1 opens a browser
	@$(PYTHON) tools/run.py

.PHONY: images
images: install ## Build the images of a cluster; with ARGOSY_IMAGE_REGISTRY, push them
	@tools/install scanner
	@tools/images

##@ Check
# What fails is run once more, alone; `tools/suite.py` says when that counts as green.
SUITE := $(PYTHON) tools/suite.py
# One more than there are cores: while one test waits, another one works.
WORKERS := -n $(shell expr $$(nproc) + 1) --dist worksteal
DEEP_FARM := $(foreach name,cleaning click crash hub reconnect target week,tests/local/test_$(name).py)
DEEP_STEPS := $(filter-out $(DEEP_FARM),$(wildcard tests/local/test_*.py))

.PHONY: test
test: test-tools ## Pass unit, integration and chart, and one way through each kind with real containers
	@$(SUITE) $(WORKERS) -m "not deep" --cov --cov-report= --cov-fail-under=0 tests/unit tests/integration -- \
	  $(WORKERS) tests/chart -- -m smoke tests/local
	@$(BIN)/coverage report

.PHONY: test-fast
test-fast: test-tools ## Pass the tests that need no container: unit, integration
	@$(SUITE) $(WORKERS) -m "not deep" tests/unit tests/integration

.PHONY: test-deep
test-deep: test-deep-steps test-deep-farm ## Pass everything that one machine can show beyond `make test`, in half an hour

.PHONY: test-deep-steps
test-deep-steps: test-tools ## Pass half of that: each step with real tools, faults, limits, isolation
	@$(SUITE) --cov --cov-report=term:skip-covered --cov-fail-under=0 $(DEEP_STEPS)

.PHONY: test-deep-farm
test-deep-farm: test-tools ## Pass the other half: whole farms, crashes, cleaning, a week of builds
	@$(SUITE) -m deep tests/integration -- --cov --cov-report=term:skip-covered --cov-fail-under=0 $(DEEP_FARM)

.PHONY: test-chart
test-chart: chart-tools ## Pass the tests of the Helm chart, which need Helm alone
	@$(SUITE) $(WORKERS) tests/chart

.PHONY: test-cluster
test-cluster: cluster-tools ## Pass the tests that need a Kubernetes with Argo: KUBECONFIG and ARGOSY_TEST_REGISTRY say where
	@$(SUITE) tests/cluster

.PHONY: test-cluster-smoke
test-cluster-smoke: cluster-tools ## Pass one way through that: install by chart, click to server, stop, one hostile build
	@$(SUITE) -m smoke tests/cluster

.PHONY: affected
affected: python ## Print the suites that the change since BASE has to pass
	@$(PYTHON) tools/affected.py $(BASE)

.PHONY: lint
lint: python ## Check format, style, types, arrows between rooms, and that generated files are fresh
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTHON) tools/docs.py --check
	@$(PYTHON) tools/render.py --check

.PHONY: bench
bench: test-tools ## Print what a launch, a follower and a build cost
	@$(PYTHON) -m tests.benchmarks

.PHONY: bench-cluster
bench-cluster: cluster-tools ## Print what builds cost on the cluster of KUBECONFIG and beside it on this machine, a queue, a catalogue
	@$(PYTHON) -m tests.benchmarks cluster_build build cluster_flow cluster_catalogue

.PHONY: soak
soak: test-tools ## Use a farm for ARGOSY_SOAK_SECONDS (300) and say what of it does not stay flat
	@$(PYTHON) -m tests.benchmarks.soak

##@ Develop
.PHONY: format
format: python ## Format the code and mend what ruff can mend
	-@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

.PHONY: docs
docs: python ## Write the tables of settings, of the chart's values and of suites anew
	@$(PYTHON) tools/docs.py

.PHONY: render
render: python ## Write the WorkflowTemplates of the chart anew
	@$(PYTHON) tools/render.py

.PHONY: lock
lock: python ## Choose the versions in requirements.lock anew
	@$(BIN)/uv pip compile --quiet --upgrade --no-emit-index-url --no-header --no-annotate \
	  --extra machine --extra postgres --extra test pyproject.toml --output-file requirements.lock

##@ Set up
.PHONY: install
install: ## Install what `make run` needs and is missing: Debian's packages, Python's, the Hub's proxy
	@tools/install

.PHONY: test-tools
test-tools: ## Install what is missing for the tests on this machine: all that, Grype, Helm, a vulnerability database
	@tools/install test

.PHONY: python
python: ## Install what is missing of Python's packages alone
	@tools/install python

.PHONY: cluster-tools
cluster-tools: ## Install what is missing for the tests on a cluster: all that, PostgreSQL, kubectl and argo
	@tools/install cluster

.PHONY: chart-tools
chart-tools: ## Install what is missing for the tests of the chart: Python's packages and Helm
	@tools/install chart

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
