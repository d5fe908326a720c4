# make run PROMPT="ROMEO:"   a continuation from the bundled model
# make test                  the tests
# make check                 lint, format and types
# make bench                 speed, beside the bare matrix products

PYTHON ?= python3
MODEL ?= shakespeare
ARGS ?= --n_tokens_to_generate 100
PROMPT ?= ROMEO:
VENV := .venv
BIN := $(VENV)/bin
UNPINNED := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE

export PROMPT

.PHONY: run test check format bench clean

# the prompt goes through the environment: no quote or dollar in it can trip the shell
run: $(VENV)/installed-run
	@$(BIN)/python gpt2.py --model_size $(MODEL) $(ARGS) -- "$$PROMPT"

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

check: $(VENV)/installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench
	$(UNPINNED) $(BIN)/python -m benchmarks.bench
	$(UNPINNED) $(BIN)/python -m benchmarks.startup

clean:
	rm -rf $(VENV) .bench

# one environment; what each goal needs is added to it when first asked for
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-run: pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-%: pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable ".[$*]"
	@touch $@
