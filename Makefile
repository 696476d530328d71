# What a fresh machine needs: Python 3.11+ and, for the fast kernels, a C++ compiler.

PYTHON ?= python3
PRESET ?= laptop
PROFILE ?= small
BIN := .venv/bin
READY := .venv/.ready
SERVING := .venv/.serving
export PATH := $(CURDIR)/.venv/bin:$(PATH)

NATIVE := $(wildcard src/rorqual/kernels/native/*)
WEB := $(wildcard web/*.* web/src/*.* web/src/*/*.* web/public/*.* web/scripts/*.*)

.PHONY: setup run train speedrun reproduce-pocket test check soak bench lock clean

setup: $(READY)

# What serving needs: neither torch nor the tests' packages.
$(SERVING): pyproject.toml CMakeLists.txt requirements/run.lock $(NATIVE) $(WEB)
	@$(PYTHON) -c 'import sys; sys.exit("Rorqual needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setup: packages" && $(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements/run.lock
	@echo "setup: Node" && $(BIN)/python scripts/ensure_node.py
	@echo "setup: the web app" && cd web && npm ci --ignore-scripts --loglevel=error && npm run --silent build
	@echo "setup: Rorqual and its kernels" && $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(SERVING)

$(READY): $(SERVING) requirements/dev.lock requirements/torch.txt
	@echo "setup: PyTorch" && $(BIN)/python -m pip install -q --no-deps -r requirements/torch.txt
	@echo "setup: packages for training and tests" && $(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements/dev.lock
	@touch $(READY)

# make run PHONE=1: for a phone in the same network, by a QR code that works once.
run: $(SERVING)
	$(BIN)/rorqual serve models/rorqual-pocket $(if $(PHONE),--phone)

train: setup
	$(BIN)/rorqual data fetch --profile $(PROFILE)
	$(BIN)/rorqual train $(PRESET) --resume
	$(BIN)/rorqual generate runs/$(PRESET) -i

speedrun: setup
	$(BIN)/rorqual data fetch --profile $(PROFILE)
	$(BIN)/rorqual speedrun --preset laptop --out runs/speedrun

# The path of the models that ship, about half a day on two cores; goes on where it stopped.
reproduce-pocket: setup
	$(BIN)/rorqual data fetch --profile small
	$(BIN)/rorqual speedrun --preset pocket --out runs/pocket
	$(BIN)/rorqual speedrun --preset krill --out runs/krill

test: setup
	$(BIN)/python tests/tokenizer/fetch_published.py
	$(BIN)/python tests/checkpoint/fetch_models.py
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/basedpyright
	cd web && npm run --silent check && npm run --silent size

soak: setup
	$(BIN)/python -m pytest -m soak

bench: setup
	$(BIN)/rorqual bench
	$(BIN)/python benchmarks/train_step.py

COMPILE := pip-compile -q --generate-hashes --no-header --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --unsafe-package torch

lock:
	$(BIN)/$(COMPILE) --extra serve --extra build -o requirements/run.lock pyproject.toml
	$(BIN)/$(COMPILE) \
	  --extra train --extra serve --extra postgres --extra gguf --extra test --extra check --extra build \
	  -c requirements/torch.txt -o requirements/dev.lock pyproject.toml

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis src/rorqual/kernels/_kernels.so
