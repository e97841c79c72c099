# `make demo` shows what adaptation does, `make test` checks everything. Both create .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTHON_OLDEST ?= python3.10
BIN := .venv/bin
OLDEST := .venv-oldest/bin

.PHONY: demo test test-browser fuzz attack soak lint test-oldest clean

demo: .venv/installed
	$(BIN)/python -m scripts.demo --out results/demo
	$(BIN)/python -m scripts.demo --target compression --methods bn-stats --out results/demo-compression

test: .venv/installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# The pages in a real Chromium ($CHROMIUM, or the one on the PATH); screenshots go to results/browser.
test-browser: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/test_pages.py

# A sweep whose workers are killed a hundred times, and its launcher eight times; one whose power is cut.
soak: .venv/installed
	SWEEP_KILLS=100 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_cluster.py -k kills_of_workers -s
	POWER_CUTS=25 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_sweep.py -k power_cut -s

# Files of every kind that is read, changed at random: each is read or refused in one line, and nothing else happens.
fuzz: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds 120

# Every command with files, folders, numbers and words that are none: an hour or so.
attack: .venv/installed
	$(BIN)/python -m tests.attack

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The same tests on the oldest versions that pyproject.toml allows.
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 $(OLDEST)/python -m pytest -n auto --dist worksteal

.venv/installed: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

.venv-oldest/installed: requirements-oldest.txt
	$(PYTHON_OLDEST) -m venv .venv-oldest
	$(OLDEST)/python -m pip install --quiet --disable-pip-version-check -r requirements-oldest.txt
	touch $@

clean:
	rm -rf .venv .venv-oldest results
