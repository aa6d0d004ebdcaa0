# The front door: `make demo` and `make test`. All targets first make .venv from setup.py and
# constraints.txt, again whenever one of the two is newer than the last finished installation.

PYTHON ?= python3.11
EXTRAS ?= dev,media,metaworld,serving
# Passed on to the program a target runs, as in: make demo ARGS=--seed=1
ARGS ?=
# Test processes side by side, TensorFlow on one thread in each; 0 for this one and no other.
WORKERS ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint benchmark clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUDO := $(if $(filter 0,$(shell id -u)),,sudo )
APT := $(SUDO)apt-get update && $(SUDO)apt-get install -y python3.11 python3.11-venv

define HELP
Targets:
  make setup      make or update .venv and nothing else
  make demo       train PEARL on point robots, adapt to unseen tasks, serve the result
  make test       lint, then all tests
  make check      lint, then the quick tests, for the work in between
  make lint       ruff (lint and format) and the import contracts
  make benchmark  time the gradient step, sampling and collection; measure memory
  make clean      remove .venv, caches and build outputs; runs/ stays
  make help       this list
Options: PYTHON=/path/to/python3.11  ARGS='--flag=value' (demo, benchmark, test)  WORKERS=4 (test)
endef
export HELP

define NO_PYTHON
$(PYTHON) was not found, and PEARL-TF needs Python 3.11. On Debian and Ubuntu type:
  $(APT)
If apt-get does not know python3.11 (Ubuntu 24.04 and later), type this before it:
  $(SUDO)add-apt-repository -y ppa:deadsnakes/ppa
If you have one elsewhere: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11
endef
export NO_PYTHON

define NO_VENV
$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing.
On Debian and Ubuntu type:
  $(APT)
endef
export NO_VENV

define INSTALL_FAILED
The installation did not finish. What pip did is in $(VENV)/install.log; the same command tries again.
endef
export INSTALL_FAILED

help:
	@echo "$$HELP"

setup: $(STAMP)
	@echo "$(VENV) is ready: source $(BIN)/activate"

demo: $(STAMP)
	@$(BIN)/python -m serving.demo --root_dir=runs/demo $(ARGS)

benchmark: $(STAMP)
	@$(BIN)/python -m trainers.benchmark $(ARGS)

# In a temporary folder of their own: processes that a test kills cannot remove their files. With two
# arenas for malloc, or threads that have ended keep a third of the memory.
PYTEST := folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; TMPDIR=$$folder \
  TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=2 \
  $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile
QUICK := collect data environments inference networks policies replay style
# Whatever a test process has compiled it keeps: in two halves, one after the other, they need half
# the memory. The longest files begin, so that no worker is left alone with one.
LONG := launch/distributed_test.py experiment/resume_test.py
FIRST := $(LONG) launch experiment agents
SECOND := $(filter-out $(FIRST), $(patsubst tests/%/,%,$(wildcard tests/*/)))
TESTS = ($(PYTEST) --no-loadscope-reorder $(addprefix tests/,$(1)))

test: lint
	@$(if $(ARGS),$(PYTEST) $(ARGS),failed=0; $(call TESTS,$(FIRST)) || failed=1; \
	  $(call TESTS,$(SECOND)) || failed=1; exit $$failed)

check: lint
	@$(PYTEST) $(addprefix tests/,$(QUICK)) -k 'not metaworld' $(ARGS)

lint: $(STAMP)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python $(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose interpreter no longer runs is made anew, any other is brought up to date.
# pip prints a line for each package; sed keeps the big downloads; errors go past it on stderr.
$(STAMP): setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$$NO_PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { $(PYTHON) --version >&2; echo "$$NO_PYTHON" | sed '1s/was not found/is not 3.11/' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$$NO_VENV" >&2; exit 1; }
	@echo "Installing into $(VENV) (2.2 GB; one to several minutes, by the network) ..."
	@clear=; $(BIN)/python -m pip --version >/dev/null 2>&1 || clear=--clear; \
	  $(PYTHON) -m venv $$clear $(VENV)
	@rm -f $(VENV)/install.log
	@$(BIN)/python -m pip install --log $(VENV)/install.log --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[$(EXTRAS)]' \
	  | sed --unbuffered --quiet --regexp-extended \
	    -e 's/^ *(Downloading|Using cached) (.* MB\))$$/  \1 \2/p' \
	    -e 's/^Installing collected packages:.*/  Installing all of them/p' \
	  || { echo "$$INSTALL_FAILED" >&2; exit 1; }
	@touch $@

# Folders are no targets: without the first line `make tests` would find the folder and do nothing.
FOLDERS := docs pearl_tf serving tests trainers
.PHONY: $(FOLDERS)
$(FOLDERS) .DEFAULT:
	@echo "There is no target '$@'." >&2; echo "$$HELP" >&2; exit 2
