# Everything a newcomer needs: `make demo` and `make test` do their own set-up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_WAIT_POLICY ?= passive

.PHONY: install demo test test-slow check wheel clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: install  ## learn a prompt on mini, evaluate it, draw it
	$(BIN)/sd4match demo --output demo

test: install  ## the quick suite, with doctests, README and coverage
	$(BIN)/python -m pytest --cov --cov-report=term

test-slow: install  ## the checks that take minutes
	$(BIN)/python -m pytest -m slow --override-ini addopts="--strict-markers --strict-config -ra"

check: install  ## style, types, layers, then the quick suite
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

wheel: install  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) dist demo .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
