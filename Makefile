# Everything runs in .venv, made from nothing but Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# Real clips and model files beside the checkout, where there are any; tests that need them say so when they are absent.
export SIGN_DIST_SHARED ?= $(abspath ../shared)
ifneq ($(wildcard $(SIGN_DIST_SHARED)/models/mediapipe),)
export SIGN_DIST_MODELS ?= $(SIGN_DIST_SHARED)/models/mediapipe
endif
# A CPU has nothing to gain from threads that fight each other in every test.
TEST_ENV := OMP_NUM_THREADS=1
SIDE_BY_SIDE := -n auto --maxprocesses 8

.PHONY: quickstart test check static test-unit test-long test-ray test-commands test-slow fuzz bench clean

quickstart: .venv/installed
	$(BIN)/sign-dist quickstart

# The last two wait for processes to start more than they compute, so each has time for the other.
test: check test-long
	$(MAKE) --jobs=2 test-ray test-commands

# Types are checked in one thread: the tests need not wait for it.
check: .venv/installed-dev
	$(MAKE) --jobs=2 static test-unit

static: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

test-unit: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest $(SIDE_BY_SIDE) -m "not long and not ray and not gpu and not slow and not commands"

test-long: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest $(SIDE_BY_SIDE) -m "long and not ray and not gpu and not slow and not commands"

test-ray: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest -m "ray and not gpu and not slow"

test-commands: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest -m "commands and not slow"

test-slow: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest -m "slow and not gpu"

fuzz: export FUZZ_MUTATIONS ?= 20000
fuzz: .venv/installed-dev
	$(TEST_ENV) $(BIN)/pytest -s --timeout=0 tests/video/test_fuzz.py

bench: .venv/installed-dev
	$(BIN)/python benchmarks/extract.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

# pip's progress shows that the first installation, some minutes long, is alive.
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ .venv/installed

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis runs/quickstart
