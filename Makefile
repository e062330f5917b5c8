# Each target creates the environment it needs in .venv. Requires only Python 3.11-3.13 and make.
#   make demo   trains and validates on a phantom data set (no data or GPU required)
#   make test   linters, type checks and all tests
#   make site   the documentation as a web site, in site/

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count())")

.PHONY: demo site test lint types tests slurm notebooks bench clean

demo: $(BIN)/.runtime
	$(BIN)/frugalseg demo --out $(DEMO) --jobs $(CORES)

test: lint types tests

lint: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.dev
	$(BIN)/pyright

tests: $(BIN)/.dev slurm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES)

site: $(BIN)/.dev
	$(BIN)/mkdocs build --strict

# Slurm for tests/cluster: uses an installed one, or installs (as root) or unpacks the Debian packages; starts nothing.
slurm:
	tests/cluster/install_slurm.sh .venv/slurm

# Executes the notebooks of data/ and examples/ on phantoms; `make tests` does so, too.
notebooks: $(BIN)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_notebooks.py

bench: $(BIN)/.runtime
	$(BIN)/python -m benchmarks.all

$(BIN)/.runtime: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(BIN)/.dev: requirements-dev.txt requirements-docs.txt $(BIN)/.runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv $(DEMO)
