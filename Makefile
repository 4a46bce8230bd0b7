# actlab: `make help` lists the targets. Whatever needs Python builds .venv first when it is not there.

PYTHON ?= python3
CONFIG ?= configs/house_prices.yaml
ARGS ?=
RUN ?=
CKPT ?=
INPUT ?=
OUTPUT ?=

VENV := .venv
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ACTLAB := $(BIN)/actlab

.DEFAULT_GOAL := help
.PHONY: help setup article train compare search report tensorboard predict
.PHONY: test test-slow check bench calibrate dashboard clean

help:
	@awk 'BEGIN {FS = ":[^#]*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  CONFIG=FILE  another configuration than $(CONFIG)'
	@echo '  ARGS="..."   passed on, for example: make compare ARGS="--out runs/second"'
	@echo 'Your own table, after make setup: $(ACTLAB) compare --data.csv my.csv --data.target price'

setup: $(STAMP) ## build .venv with the pinned packages and actlab itself

article: $(STAMP) ## the teaching experiment to the letter: one run of each of four activations
	$(ACTLAB) article --config $(CONFIG) $(ARGS)

train: $(STAMP) ## train one activation with several seeds
	$(ACTLAB) fit --config $(CONFIG) $(ARGS)

compare: $(STAMP) ## the fair comparison: repeated until it is settled
	$(ACTLAB) compare --config $(CONFIG) $(ARGS)

search: $(STAMP) ## search activation and learning rate together, with an adaptive sampler
	$(ACTLAB) search --config $(CONFIG) $(ARGS)

report: need-RUN $(STAMP) ## make report.html and the figures of RUN=runs/NAME again
	$(ACTLAB) report '$(RUN)' $(ARGS)

tensorboard: $(STAMP) ## show the curves of RUN=runs/NAME (or of all of runs) on localhost
	@echo 'http://localhost:6006/#custom_scalars&regexInput=%5E%5B%5E~%5D'
	$(BIN)/tensorboard --logdir '$(or $(RUN),runs)' --host localhost $(ARGS)

predict: need-CKPT need-INPUT need-OUTPUT $(STAMP) ## predict with CKPT=FILE for INPUT=CSV into OUTPUT=CSV
	$(ACTLAB) predict --ckpt_path '$(CKPT)' --input '$(INPUT)' --output '$(OUTPUT)' $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(STAMP) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(STAMP) ## lint, formatting, types and code that is there twice
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pylint src

bench: $(STAMP) ## measure against what people would use instead, and against the limit
	@$(BIN)/python -m pip show --quiet skorch 2>/dev/null || $(PIP_INSTALL) -e '.[bench]'
	$(BIN)/python scripts/bench.py $(ARGS)

calibrate: $(STAMP) ## count wrong verdicts where the truth is known, and what is found
	$(BIN)/python scripts/calibrate.py $(ARGS)

dashboard: need-RUN $(STAMP) ## show the study of RUN=runs/NAME in Optuna's dashboard on 127.0.0.1
	@test -x $(BIN)/optuna-dashboard || $(PIP_INSTALL) -e '.[dashboard]'
	$(BIN)/optuna-dashboard --host 127.0.0.1 $(ARGS) '$(RUN)/study.journal'

clean: ## remove caches and build files; runs/, data/ and .venv stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +

# Before the stamp in a list of prerequisites: a missing variable is told at once, not after minutes of setting up.
need-%:
	@test -n '$($*)' || { echo '$* is needed and was not given: make $(firstword $(MAKECMDGOALS)) $*=...' >&2; exit 2; }

# torch comes first: a build for this machine's processor, already there, is then kept by everything that depends on it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'actlab needs Python 3.11 or later; name one like this: make setup PYTHON=python3.12' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 2; }
	@echo 'Setting up $(VENV): the first time takes a few minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) -e '.[dev,onnx,postgres]'
	@touch $@
