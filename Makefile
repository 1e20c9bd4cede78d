# Every target works from a clean clone with no step before it, given Rust, Python 3.11+ and make.
# PYTHON picks the interpreter that the virtual environment is made with.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# maturin's own directory: sharing one with cargo, each would rebuild the other's work.
MATURIN_TARGET := target/maturin
RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock build.rs pyproject.toml
# The interpreter that cargo links the Rust tests of the border with.
export PYO3_PYTHON := $(abspath $(BIN))/python

.PHONY: demo test check lint bench build rust-test python-test format clean

demo: $(VENV)/.built
	$(BIN)/python -m rsock demo

test: rust-test python-test

# Everything that CI runs.
check: lint test

# Format, lints, types, and the stub against the module.
lint: $(VENV)/.built
	cargo fmt --check
	cargo clippy --all-targets --target-dir target/cargo -- -D warnings
	cargo clippy --all-targets --no-default-features --target-dir target/cargo -- -D warnings
	cargo fmt --check --manifest-path benchmarks/peers/Cargo.toml
	cargo clippy --manifest-path benchmarks/peers/Cargo.toml --target-dir target/bench -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tests/prose.py
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rsock._rsock

bench: $(VENV)/.built
	cargo build --release --manifest-path benchmarks/peers/Cargo.toml --target-dir target/bench
	$(BIN)/python benchmarks/run.py $(BENCH)

build: $(VENV)/.built

rust-test:
	cargo test --no-default-features --target-dir target/cargo $(ARGS)

# Arguments go into ARGS: make python-test ARGS="-k stop -x", make rust-test ARGS=stop.
python-test: $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS)

format: $(VENV)/.tools
	cargo fmt
	cargo fmt --manifest-path benchmarks/peers/Cargo.toml
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf target $(VENV)

$(VENV)/.tools: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group contributing
	touch $@

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) CARGO_TARGET_DIR=$(MATURIN_TARGET) $(BIN)/maturin develop --release --quiet
	touch $@
