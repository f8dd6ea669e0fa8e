# Every target sets up what it needs: PYTHON=python3.12 make test works too.
PYTHON ?= python3.11
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN = $(VENV)/bin
STAMP = $(VENV)/installed-$(notdir $(PYTHON))
PLUGINS = $(wildcard plugins/*/pyproject.toml)
EDITABLE = -e '.[dev]' $(patsubst %/pyproject.toml,-e %,$(PLUGINS))

PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15

SECONDS_EACH ?= 600

.PHONY: quickstart test test-all test-floor test-wheels test-slow rehearsal fuzz benchmarks docs lint check install clean

quickstart: install  ## the main job on the embedded data: table, report, saved_models/quickstart/1
	$(BIN)/mimic-keras run experiments/quickstart.yaml

test: install  ## the tests of at most six seconds, on the newest supported TensorFlow
	$(PYTEST)

test-all: install  ## those of more than six seconds, too
	$(PYTEST) -m 'not slow and not wheels and not rehearsal'

test-floor:  ## all these on the oldest supported TensorFlow and Keras
	$(MAKE) test-all VENV=.venv-floor CONSTRAINTS=constraints-floor.txt

test-wheels: install  ## the quickstart, the examples and new plugins, from built wheels as a stranger has them
	$(BIN)/python -m pytest -m wheels

test-slow: install  ## whole experiments; MIMIC_KERAS_TEST_CIFAR10 and MIMIC_KERAS_TEST_TIMIT say where data is
	$(BIN)/python -m pytest -m slow

rehearsal: install  ## thirty steps of every net of the papers' files; the places of the data as for test-slow
	$(BIN)/python -m pytest -m rehearsal

fuzz: install  ## hostile files for every reader, SECONDS_EACH for each, guided by coverage (Linux, Python 3.11 or newer)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) -e '.[fuzz]'
	for target in yaml setting cifar archive compressed unlabelled predictions sound transcript; do \
	  $(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS_EACH) || exit 1; done

benchmarks: install  ## all benchmarks that can run here, to benchmarks/tables.md: hours, on a quiet machine
	$(BIN)/python benchmarks

lint: install  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## the documentation as a site, strictly: site/index.html; .venv/bin/mkdocs serve shows it while you write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint docs test-all test-wheels  ## what CI runs

install: $(STAMP)

$(STAMP): pyproject.toml $(PLUGINS) $(CONSTRAINTS)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) $(EDITABLE)
	touch $@

clean:  ## remove environments and caches; keeps runs/, saved_models/ and the home folder
	rm -rf site .venv .venv-floor .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
