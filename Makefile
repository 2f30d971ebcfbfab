# make run: from nothing to a published, reversible release. make test: everything CI runs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.9
# compiled at once: every command is a process of its own, and its imports are most of a short one's time
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
export OMP_WAIT_POLICY := PASSIVE
# one test process more than cores: those of the flows wait for servers half of the time
TESTERS = $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
# wheels that pip is told to look for (a machine's own build of torch) are found by uv as well
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: run test check setup clean

run: setup
	$(BIN)/suture edit examples/facts.yaml
	$(BIN)/suture edit examples/identity.yaml

test: check
	# in the order of the folders: the slowest file has three tests and would otherwise come last
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.ready

$(VENV)/.ready: infra/requirements.lock infra/carried.lock infra/servers.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Suture needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(INSTALL) -r infra/requirements.lock
	$(INSTALL) --no-deps --require-hashes -r infra/carried.lock -r infra/servers.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .suture
