# `make demo` and `make test` need nothing but Python >= 3.11 and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AUDIT := $(VENV)/audit

.PHONY: demo benchmarks test test-slow faults night check audit clean help
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(INSTALLED) ## install, then run the whole pipeline on the embedded model
	$(BIN)/lead run

# Stopped, it goes on where it was. HumanEval runs what the model writes, each program isolated: docs/security.md.
SELECTORS ?= random lead
benchmarks: $(INSTALLED) ## the table of benchmarks: base model, and tuned by rule (DATA=FOLDER, hours; docs/presets.md)
	@test -n "$(DATA)" || { echo "error: say where sources and benchmarks lie: make benchmarks DATA=FOLDER" >&2; exit 2; }
	set -e; for selector in $(SELECTORS); do \
	    $(BIN)/lead run --preset benchmarks --set "data.local_copies=$(DATA)" --set "evaluate.data_dir=$(DATA)" \
	        --set evaluate.run_generated_code=true --set select.selector=$$selector; \
	    $(BIN)/python -m lead_core.evaluation_record results/benchmarks; \
	done
	$(BIN)/python -m lead_core.published

# Two at a time, a file's tests one after the other: they share what is dear to set up.
test: $(INSTALLED) ## the default tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(INSTALLED) ## the tests on the real model and with real servers
	$(BIN)/python -m pytest -m slow

faults: $(INSTALLED) ## kill, fill and damage runs at random; counts how many survived (over an hour)
	$(BIN)/python -m pytest -m faults --fault-record=results/faults/faults.json

MINUTES ?= 30
SEED ?= 0
night: $(INSTALLED) ## MINUTES=30 of scheduled runs with faults at random; accounts for every run
	$(BIN)/python tests/night.py --minutes $(MINUTES) --seed $(SEED)

check: $(INSTALLED) ## lint, format and types, as CI does
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy flows lead_core

# In an environment of its own, so that the tool's packages are none of ours. Strict: a package that the
# service does not answer for is an error, not a silent "no known vulnerabilities".
audit: $(AUDIT)/bin/pip-audit ## look for known vulnerabilities of the pinned packages (needs PyPI's JSON API)
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r constraints.txt || { \
	    echo "error: vulnerable packages are in the table above; with ERROR above instead of a table, PyPI's" \
	    "JSON API could not be reached and nothing was checked" >&2; exit 1; }

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.9,<3'

# Made anew only when what is to be installed changes.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
	    "error: LEAD needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d; say which to use: make PYTHON=python3.11 ..." % v[:2])'
	@echo "installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## remove the environment and the tools' caches; results and recorded runs stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
