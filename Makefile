# Everything a newcomer needs: `make demo` and `make test` do their own set-up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_WAIT_POLICY ?= passive

.PHONY: install demo test test-slow test-lowest test-newest coverage lint check mutation robustness bench bench-full wheel dist \
	docs docs-serve clean

install: $(READY)

# timm comes without torchvision, which stops transformers unless it is of the very build of torch; no test needs it
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps timm
	@touch $(READY)

demo: install  ## learn a prompt on mini, evaluate it, draw it
	$(BIN)/sd4match demo --output demo

test: install  ## the quick suite, with doctests and the documents' programs
	$(BIN)/python -m pytest

coverage: install  ## the quick suite with the coverage of every file
	$(BIN)/python -m pytest --cov --cov-report=term

test-slow: install  ## the checks that take minutes
	$(BIN)/python -m pytest -m slow --override-ini addopts="--import-mode=importlib --strict-markers --strict-config -ra"

# What users install gets the lowest version that pyproject.toml allows; pytest and other tools get the newest that fits.
# torch is the exception: PyPI's builds of older releases for Linux on x86_64 bring gigabytes of CUDA libraries. Set
# LOWEST_TORCH=lowest to install its lower bound too. Old releases warn of much, so warnings are not errors here.
LOWEST := .venv-lowest
LOWEST_PYTHON ?= python3.11
LOWEST_TORCH ?= 2.13.0
LOWEST_READY := $(LOWEST)/.ready-$(LOWEST_TORCH)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

$(LOWEST_READY): pyproject.toml tools/lowest.py
	rm -rf $(LOWEST)
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python tools/lowest.py $(if $(filter lowest,$(LOWEST_TORCH)),,--torch $(LOWEST_TORCH)) > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) --constraint $(LOWEST)/lowest.txt torch
	$(LOWEST)/bin/python $(PIP_INSTALL) --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/python $(PIP_INSTALL) --constraint $(LOWEST)/lowest.txt --no-deps timm
	@touch $@

test-lowest: $(LOWEST_READY)  ## the quick suite on the lowest versions of the dependencies, in .venv-lowest
	$(LOWEST)/bin/python -m pytest -W default --disable-warnings

NEWEST := .venv-newest
test-newest:  ## the quick suite on the newest versions of the dependencies, in .venv-newest
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python $(PIP_INSTALL) --editable '.[dev]'
	$(NEWEST)/bin/python $(PIP_INSTALL) --no-deps timm
	$(NEWEST)/bin/python -m pytest

lint: install  ## style, types, layers
	$(BIN)/ruff check src tests tools benchmarks robustness docs/notebooks
	$(BIN)/ruff format --check src tests tools benchmarks robustness docs/notebooks
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint coverage  ## style, types, layers, and the quick suite with coverage

MUTANTS ?= all
mutation: install  ## small changes of matching, geometry and protocols that a test must notice; MUTANTS=300 draws some: 6 minutes
	$(BIN)/python tools/mutation.py $(if $(filter all,$(MUTANTS)),,--mutants $(MUTANTS))

robustness: install  ## thousands of hostile inputs for every public entry and file format: 5 minutes
	$(BIN)/python -m robustness

# with threads that sleep between operations (OMP_WAIT_POLICY=passive), small ones would take five times as long
bench: install  ## ours against reference-shaped loops, a quarter-width model: 5 to 11 minutes
	env -u OMP_WAIT_POLICY $(BIN)/python -m benchmarks

bench-full: install  ## the same with Stable Diffusion 2.1's architecture at 768: half an hour, 16 GB of memory
	env -u OMP_WAIT_POLICY $(BIN)/python -m benchmarks --full

docs: install  ## the documentation site, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: install  ## the site at http://127.0.0.1:8000, built again after each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

wheel: install  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

dist: install  ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) $(LOWEST) $(NEWEST) dist demo site .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
