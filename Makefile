# Everything a newcomer needs; each target builds what it lacks. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo up test lint bench lock clean

help:
	@echo "make demo   start the service, run the examples through it, stop it"
	@echo "make up     start the service and keep it up (PORT=8000)"
	@echo "make test   run every test"
	@echo "make lint   ruff, format check, mypy"
	@echo "make bench  measure; prints one JSON object a line and keeps them in bench/results/"
	@echo "make lock   compile requirements/*.txt from pyproject.toml (needs uv)"

demo: $(VENV)/local
	@$(BIN)/phi4 demo

up: $(VENV)/local
	@$(BIN)/phi4 up

test: $(VENV)/dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m bench

lock:
	requirements/compile.sh

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# A marker per lock: a target is built again when its lock changed.
$(VENV)/local: requirements/local.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/local.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/local

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
