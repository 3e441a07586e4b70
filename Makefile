# make run    a container of the built-in image, from a fresh clone
# make test   everything the tests need, then `make check` and the tests
# make check  lint, types, layers
# make bench  berth beside dockerd and podman (BENCH=--quick for a short one)

# The interpreter to build with; an empty value lets tools/venv.sh look for Python 3.11 or newer.
PYTHON ?=
# How many tests run at a time: most of them wait, and one goes through the virtual machine's.
JOBS ?= 3
VENV := .venv
PY := $(VENV)/bin/python
BERTH := $(VENV)/bin/berth

.PHONY: run test check bench docs compile packages clients clean
.DELETE_ON_ERROR:

run: compile
	@$(BERTH) run --rm -m 256m host /bin/sh -c "$$(cat examples/whoami.sh)"

test: $(VENV)/test.stamp compile packages clients
	@$(MAKE) --no-print-directory check
	$(PY) -m pytest -n $(JOBS) $(PYTEST_ARGS)

check: $(VENV)/test.stamp
	$(PY) -m ruff check src tests bench
	$(PY) -m ruff format --check src tests bench
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q -p no:cacheprovider tests/test_tidy.py

bench: $(VENV)/test.stamp compile packages
	$(PY) -m bench $(BENCH)

# pip and pytest may be told not to write bytecode; the CLI is measured in milliseconds and needs it.
compile: $(VENV)/run.stamp
	@$(PY) -m compileall -q src

packages:
	@tools/test-packages.sh

clients:
	@tools/test-kernel.sh .build/kernel
	@PYTHON=$(PY) tools/test-clients.sh $(CURDIR)/.build/clients

$(VENV)/run.stamp: pyproject.toml scripts/berth scripts/berth-oci src/berth/__init__.py tools/venv.sh
	PYTHON="$(PYTHON)" tools/venv.sh $(VENV) -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	PYTHON="$(PYTHON)" tools/venv.sh $(VENV) -e '.[test,check]'
	@touch $@

# The generated part of the documentation
docs: $(VENV)/test.stamp
	$(PY) tools/conformance.py

clean:
	rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache .hypothesis
