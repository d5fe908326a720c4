# make run PROMPT="ROMEO:"   a continuation from the bundled model
# make test                  the tests
# make fuzz                  the property tests with FUZZ times as many examples: about ten minutes
# make check                 lint, format and types
# make bench                 speed, compared with the bare matrix products
# make bench-peers           speed, compared with other engines, in a separate environment
# make bench-train           speed of training, compared with PyTorch, in the same environment
# make parity                compare with OpenAI's own code: needs PYTHON37=..., takes GPT2_REPO=a local clone
# make golden                write tests/golden/ again, from the answers of OpenAI's own code

PYTHON ?= python3
MODEL ?= shakespeare
ARGS ?= --n_tokens_to_generate 100 --temperature 0.7 --top_k 40 --seed 1
PROMPT ?= ROMEO:
FUZZ ?= 10
VENV := .venv
BIN := $(VENV)/bin
UNPINNED := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE

TORCH ?= torch
PYTHON37 ?= python3.7
GPT2_REPO ?= .parity/gpt-2
PARITY_MODELS ?= shakespeare random-sharp random-124M $(patsubst models/%/hparams.json,%,$(wildcard models/124M/hparams.json))
OFFICIAL := --official_python .parity/python3.7/bin/python --gpt2_repo "$(GPT2_REPO)"

export PROMPT WITH_NANOGPT

.PHONY: run test fuzz check format bench bench-peers bench-train parity golden clean

# the prompt goes through the environment, so that the shell does not interpret quotes and dollars in it
run: $(VENV)/installed-run
	@$(BIN)/python gpt2.py --model_size $(MODEL) $(ARGS) -- "$$PROMPT"

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

fuzz: $(VENV)/installed-test
	PICOGPT_FUZZ=$(FUZZ) $(BIN)/python -m pytest -m hypothesis --timeout 0 --hypothesis-show-statistics

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

# each engine is optional and left out if it cannot be installed; WITH=a clone of picoGPT adds that program
bench-peers: .bench/peers/installed
	$(if $(WITH),ln -sfn "$(abspath $(WITH))" .bench/peers/picoGPT)
	$(UNPINNED) .bench/python/bin/python -m benchmarks.peers
	$(UNPINNED) .bench/python/bin/python -m benchmarks.batches

# WITH_NANOGPT=a clone of nanoGPT uses its own model; SIZES="small 124M-256" measures these alone
bench-train: .bench/peers/installed
	$(UNPINNED) .bench/python/bin/python -m benchmarks.training $(SIZES)

.bench/peers/installed: pyproject.toml
	mkdir -p .bench/peers
	$(PYTHON) -m venv .bench/python
	.bench/python/bin/pip install --quiet --editable ".[bench]" matplotlib
	-.bench/python/bin/pip install --quiet $(TORCH) transformers
	-.bench/python/bin/pip install --quiet ctranslate2
	-.bench/python/bin/pip install --quiet llama-cpp-python gguf
	@touch $@

parity: $(VENV)/installed-test .parity/installed $(GPT2_REPO)/src/model.py
	$(BIN)/python -m parity $(PARITY_MODELS) $(OFFICIAL)

golden: $(VENV)/installed-test .parity/installed $(GPT2_REPO)/src/model.py
	$(BIN)/python -m parity.golden $(OFFICIAL)

.parity/installed: parity/requirements.txt
	$(PYTHON37) -m venv --clear .parity/python3.7
	.parity/python3.7/bin/pip install --quiet --requirement parity/requirements.txt
	@touch $@

.parity/gpt-2/src/model.py:
	git clone --quiet https://github.com/openai/gpt-2 .parity/gpt-2
	git -C .parity/gpt-2 checkout --quiet 9b63575ef42771a015060c964af2c3da4cf7c8ab

clean:
	rm -rf $(VENV) .bench .parity

# one environment, to which each target adds what it needs
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-run: pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-%: pyproject.toml $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable ".[$*]"
	@touch $@
