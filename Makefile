# The project's commands. `make` alone lists them.
MLFLOW_VERSION := 3.17.2
ENV := var/envs/mlflow-$(MLFLOW_VERSION)
PYTEST := .venv/bin/pytest
# A file's tests stay in one process, for the parts that they share; files in their order, since the last ones are short. Three for two cores: they often wait.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
ROUNDS := 10
SHELL_FILES = $(shell git ls-files -co --exclude-standard | grep -v '\.erb$$' | xargs awk 'FNR == 1 && /^\#!\/bin\/(ba)?sh/ { print FILENAME } { nextfile }')

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-containers lint bench envs image clean walkthrough

help:                ## this list
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' Makefile | expand -t 20

demo: envs           ## the whole product on loopback: object store, service, console; Ctrl-C stops it
	@bin/demo up --foreground

test: lint           ## every test but the heavy ones, in several processes
	@$(MAKE) --no-print-directory envs
	$(PYTEST) $(PARALLEL) -m "not heavy"

test-all: lint       ## every test, the heavy ones too
	@bin/setup heavy
	@$(MAKE) --no-print-directory envs
	$(PYTEST) $(PARALLEL) -m "not heavy"
	$(PYTEST) -m heavy

test-containers:     ## every test with tracking servers in containers: those of both runtimes (the whole walk, too), and Docker's own
	@bin/setup heavy
	@$(MAKE) --no-print-directory envs
	$(PYTEST) -m containers

walkthrough:         ## the published walk-through, both editions, unattended: from the console's form to the model's answer in its image
	@bin/setup heavy
	@$(MAKE) --no-print-directory envs
	$(PYTEST) -s tests/e2e/test_walkthrough.py

lint:                ## ruff, mypy, shellcheck
	@bin/setup test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	shellcheck $(SHELL_FILES)

bench:               ## most measurements of docs/explanation/benchmarks.md, for a quiet machine (ROUNDS=10)
	@bin/setup test
	@$(MAKE) --no-print-directory envs
	.venv/bin/python -m benchmarks.box --rounds $(ROUNDS)
	.venv/bin/python -m benchmarks.access --rounds $(ROUNDS)
	.venv/bin/python -m benchmarks.service --rounds $(ROUNDS)
	.venv/bin/python -m benchmarks.export --rounds $(ROUNDS)
	.venv/bin/python -m benchmarks.metrics
	.venv/bin/python -m benchmarks.many_runs
	.venv/bin/python -m benchmarks.writers
	.venv/bin/python -m benchmarks.looks --servers 300 --rounds $(ROUNDS)
	@bin/setup heavy
	.venv/bin/python -m benchmarks.export --rounds $(ROUNDS) --arms mlwf --store ceph --models float32 text small
	.venv/bin/python -m benchmarks.console --rounds $(ROUNDS)
	.venv/bin/python -m benchmarks.containers --servers 50
	.venv/bin/python -m benchmarks.box --rounds $(ROUNDS) --runtime docker
	.venv/bin/python -m benchmarks.service --rounds $(ROUNDS) --runtime docker
	.venv/bin/python -m benchmarks.image --rounds 3

envs:                ## the tracking servers' environment, from its lock
	@bin/setup
	@[ -e $(ENV)/version.json ] || echo "Installing MLflow $(MLFLOW_VERSION) for the tracking servers …"
	@tracking_server/install $(MLFLOW_VERSION) $(ENV)

image:               ## the container image of one MLflow version (MLFLOW_VERSION=, BASE=, SITE_CA=; docs/howto/server-image.md)
	@tracking_server/build-image $(MLFLOW_VERSION)

clean:               ## stop the demo; remove its data, .venv and all that was made here
	@if [ -x .venv/bin/python ]; then bin/demo down; fi
	rm -rf var .venv build dist .mypy_cache .ruff_cache .hypothesis
