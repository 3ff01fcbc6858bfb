# `make demo` and `make test` do all of their own set-up; see README.md.
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python,$(shell $(name) -c 'import sys; print("$(name)") if (3, 11) <= sys.version_info[:2] <= (3, 13) else None' 2>/dev/null | grep -v None)))
BIN := .venv/bin
READY := .venv/ready

help:
	@echo "make demo [DATA=DIR]  draw a data set (or take DIR/images and DIR/annotations.json), then convert, train, evaluate, export, detect"
	@echo "make test             the fast tests"
	@echo "make test-slow        the tests that train for minutes"
	@echo "make lint             ruff and codespell"
	@echo "make clean            remove .venv and demo"

$(READY): setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "error: wanted Python 3.11, 3.12 or 3.13 on the path, found none; install one, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON) and the versions of constraints.txt: once, a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/python -m ssd_tf.commands.demo $(if $(DATA),--data $(DATA) --output demo/own)

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell ssd_tf data_tools tests benchmarks configs docs README.md

clean:
	rm -rf .venv demo

.PHONY: help demo test test-slow lint clean
