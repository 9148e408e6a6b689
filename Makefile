# make demo | test | check | bench: each creates the environment it needs from a bare Python 3.11+.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow test-device check bench clean

demo: $(READY)
	$(BIN)/edge-sdk demo

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# The device side alone, as a board installs it: Python 3.10, no converter.
DEVICE_PYTHON ?= python3.10
DEVICE_VENV   ?= .venv-device
test-device:
	$(DEVICE_PYTHON) -m venv $(DEVICE_VENV)
	$(DEVICE_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(DEVICE_VENV)/bin/python -m pip install --quiet -e '.[onnx,serve]' --group device-test
	$(DEVICE_VENV)/bin/python -m pytest tests/bundle tests/profiles tests/runtime tests/generation tests/serving tests/tokenizer tests/shadow tests/delivery tests/agent tests/test_import.py tests/seq2seq/test_writing.py tests/seq2seq/test_rules.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[all]' --group dev
	@touch $@

clean:
	rm -rf $(VENV) $(DEVICE_VENV) .mypy_cache .ruff_cache .pytest_cache
