# `make demo` and `make test` create .venv on first use; see README.md.
.DEFAULT_GOAL := help
CHECK_VERSION := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python,\
  $(shell $(name) -c '$(CHECK_VERSION)' 2>/dev/null && echo $(name))))
BIN := .venv/bin
READY := .venv/ready

help:
	@echo "make install          create .venv with the versions of constraints.txt"
	@echo "make demo             generate a data set, then convert, train, evaluate, export, detect"
	@echo "make demo DATA=DIR    ssd quickstart DIR: the same with your own labelled images"
	@echo "make test             the fast tests"
	@echo "make check            lint, types, fast and integration tests: what .ci/run does"
	@echo "make test-integration the tests that start processes or take tens of seconds"
	@echo "make test-slow        the tests that train for minutes"
	@echo "make test-network     two workers whose network has troubles: root, on Linux"
	@echo "make test-browser     the reports in headless Chromium, which must be installed"
	@echo "make test-clients     the exports in environments of MediaPipe, LiteRT and TensorFlow alone"
	@echo "make lint             ruff, codespell, the layers of imports, undeclared dependencies"
	@echo "make types            mypy"
	@echo "make docs             docs/configuration.md, and the documentation as a website"
	@echo "make notebook         run docs/own_images.ipynb, and store what it shows: 10 minutes"
	@echo "make clean            remove .venv and demo"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
	  echo "error: expected Python 3.11, 3.12 or 3.13 on the path, found none;" \
	    "install one, or run make PYTHON=/path/to/python" >&2; \
	  exit 1; }
	@echo "creating .venv with $(PYTHON) and the versions of constraints.txt: a few minutes, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

install: $(READY)

demo: $(READY)
	$(BIN)/python -m ssd_tf $(if $(DATA),quickstart $(DATA) --output demo/own,demo)

# One file goes to one process, whose session fixtures serve all its tests, in the order of
# tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

test-integration: $(READY)
	$(PYTEST) -m "integration and not slow"

check: lint types
	$(PYTEST) -m "not slow and not browser and not clients and not network"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-network: $(READY)
	$(BIN)/python -m pytest -m network

test-browser: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[browser]"
	$(BIN)/python -m pytest -m browser

test-clients: $(READY)
	for name in mediapipe litert tensorflow; do \
	  test -x .venv-$$name/bin/python || $(PYTHON) -m venv .venv-$$name; \
	done
	.venv-mediapipe/bin/python -m pip install --quiet mediapipe
	.venv-litert/bin/python -m pip install --quiet --constraint constraints.txt ai-edge-litert numpy
	.venv-tensorflow/bin/python -m pip install --quiet --constraint constraints.txt tensorflow
	MEDIAPIPE_PYTHON=$(CURDIR)/.venv-mediapipe/bin/python \
	  LITERT_PYTHON=$(CURDIR)/.venv-litert/bin/python \
	  TENSORFLOW_PYTHON=$(CURDIR)/.venv-tensorflow/bin/python \
	  $(BIN)/python -m pytest -m clients

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/codespell ssd_tf data_tools tests benchmarks configs docs *.py *.md
	$(BIN)/deptry ssd_tf data_tools

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m ssd_tf.config.page > docs/configuration.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict

notebook: $(READY)
	$(BIN)/python docs/run_notebook.py

clean:
	rm -rf .venv .venv-mediapipe .venv-litert .venv-tensorflow demo site

.PHONY: help install demo test test-integration check test-slow test-network test-browser \
  test-clients lint types docs notebook clean
