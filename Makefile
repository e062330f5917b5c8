# Each target sets itself up in .venv; nothing but Python 3.11-3.13 and make is needed.
#   make demo   a phantom data set, from raw files to a Dice table (needs no data, no GPU)
#   make test   the whole suite

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: demo test lint types tests slurm notebooks bench clean

demo: $(BIN)/.runtime
	PYTHON=$(BIN)/python OUT=$(DEMO) JOBS=$(CORES) examples/demo.sh

test: lint types tests

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.dev
	$(BIN)/pyright

tests: $(BIN)/.dev slurm
	$(BIN)/python -m pytest

# A Slurm for tests/cluster: finds, installs (as root) or unpacks Debian's; starts nothing.
slurm:
	tests/cluster/install_slurm.sh .venv/slurm

bench: $(BIN)/.runtime
	$(BIN)/python -m benchmarks.all

$(BIN)/.runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(BIN)/.dev: requirements-dev.txt $(BIN)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv $(DEMO)
