# Two commands for a fresh machine: `make quickstart` and `make test`. Both make the environment
# first: a virtual environment outside the tree, made again when what it is made from changes.
PYTHON ?= python3
STAMP := $(shell cat setup.cfg constraints.txt | cksum | cut -d' ' -f1)
HOME_CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
VENV ?= $(HOME_CACHE)/adapterxlt/venv-$(STAMP)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test torture check bench env format

quickstart: env
	$(BIN)/adapterxlt run quickstart/lab

test: env
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# What may happen to a store, for an hour and a half: damage, races, kills, full disks. Prints its counts.
torture: env
	$(BIN)/python -m pytest -s tests/torture tests/kill tests/store tests/fuzz

check: env
	$(BIN)/ruff format --check adapterxlt tests benchmarks
	$(BIN)/ruff check adapterxlt tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal tests/core tests/store tests/lab tests/report

format: env
	$(BIN)/ruff format adapterxlt tests benchmarks
	$(BIN)/ruff check --fix adapterxlt tests benchmarks

# All but the study, which takes hours: `benchmarks/bench_study.py --help`.
bench: env
	@for script in $(filter-out %_study.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script || exit 1; done

# The environment may serve several checkouts, so the package itself is linked anew each time.
env: $(READY)
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e . 2>&1 | grep -v WARNING || true

$(READY):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch setuptools
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,check]'
	@touch $(READY)
