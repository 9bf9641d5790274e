# The one door, for people and CI alike. Everything runs from .venv in this checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRAINING := $(VENV)/.installed-training

.PHONY: setup demo test check fix bench docs compose-test parity

setup: $(STAMP)  ## make .venv and install everything into it

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

# PyTorch is large and needed only where the engines are trained, tested and type-checked.
$(TRAINING): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,training]'
	touch $@

demo: $(STAMP)  ## run the built-in camera through all stages, with the search page
	$(BIN)/ocrstream run demo:

test: $(TRAINING)  ## all tests, real servers included
	sh tests/services/install.sh
	$(BIN)/python -m pytest

check: $(TRAINING)  ## style, types, layering, generated pages; edits nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

fix: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

GOLDEN ?=

parity: $(TRAINING)  ## the imported originals against the original programs' outputs in GOLDEN=DIR
	$(BIN)/python -m training.parity "$(GOLDEN)"

DATA ?=

bench: $(STAMP)  ## every measurement on this machine, kept in benchmarks/results; about 30 minutes, nothing else running
	sh tests/services/install.sh
	$(BIN)/python -m benchmarks.throughput frames --save
	$(BIN)/python -m benchmarks.throughput index --save
	$(BIN)/python -m benchmarks.latency clip --save
	$(BIN)/python -m benchmarks.latency live --save
	$(BIN)/python -m benchmarks.memory --save
	$(BIN)/python -m benchmarks.memory --page --save
	$(if $(DATA),$(BIN)/python -m benchmarks.accuracy "$(DATA)")

docs: $(STAMP)  ## write the tables in docs/ that follow from the code
	$(BIN)/python docs/generate.py

compose-test: $(STAMP)  ## the Dockerfile and docker-compose.yml for real, with a text of demo: found at the end
	sh tests/services/install.sh
	$(BIN)/python deploy/compose_test/compose_test.py
