# What a fresh machine needs: Python 3.11+ and, for the fast kernels, a C++ compiler.

PYTHON ?= python3
PRESET ?= laptop
PROFILE ?= small
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup run speedrun test check soak bench lock clean

setup: $(READY)

$(READY): pyproject.toml CMakeLists.txt requirements/dev.lock requirements/torch.txt $(wildcard src/rorqual/kernels/native/*)
	@$(PYTHON) -c 'import sys; sys.exit("Rorqual needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setup 1/4: PyTorch" && $(BIN)/python -m pip install -q --no-deps -r requirements/torch.txt
	@echo "setup 2/4: locked packages" && $(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements/dev.lock
	@echo "setup 3/4: Node" && $(BIN)/python scripts/ensure_node.py
	@echo "setup 4/4: Rorqual and its kernels" && $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(READY)

run: setup
	$(BIN)/rorqual data fetch --profile $(PROFILE)
	$(BIN)/rorqual train $(PRESET) --resume
	$(BIN)/rorqual generate runs/$(PRESET) -i

speedrun: setup
	$(BIN)/rorqual data fetch --profile $(PROFILE)
	$(BIN)/rorqual speedrun --preset laptop --out runs/speedrun

test: setup
	$(BIN)/python tests/tokenizer/fetch_published.py
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(wildcard src/rorqual/kernels/native/*)
	$(BIN)/basedpyright

soak: setup
	$(BIN)/python -m pytest -m soak

bench: setup
	$(BIN)/python benchmarks/train_step.py

lock:
	$(BIN)/pip-compile -q --generate-hashes --no-header --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --unsafe-package torch \
	  --extra train --extra test --extra check --extra build \
	  -c requirements/torch.txt -o requirements/dev.lock pyproject.toml

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis src/rorqual/kernels/_kernels.so
