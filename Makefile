# Every target works from a clean clone with no step before it, given Rust, Python 3.11+ and make.
# PYTHON picks the interpreter that the virtual environment is made with; without it, that of an
# environment that is there is kept.

VENV ?= .venv
BIN := $(VENV)/bin
# maturin's own directory: sharing one with cargo, each would rebuild the other's work.
MATURIN_TARGET := target/maturin
RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock build.rs pyproject.toml
# A download that is cut is taken up again.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --retries 10 --resume-retries 20
# The interpreter that cargo links the Rust tests of the border with.
export PYO3_PYTHON := $(abspath $(BIN))/python

# Which interpreter an environment is of: its version, and where it is installed.
IDENTITY := import sys; sys.version_info >= (3, 11) and print(*sys.version_info[:3], sys.base_prefix)
FOUND := $(shell $(BIN)/python -c '$(IDENTITY)' 2>/dev/null)
PYTHON ?= $(if $(FOUND),$(BIN)/python,python3)
WANTED := $(shell $(PYTHON) -c '$(IDENTITY)' 2>/dev/null)
RUST := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
# Empty if the wanted interpreter is missing or too old; `interpreter` says so.
SAME := $(if $(WANTED),$(filter-out $(FOUND),$(WANTED))$(filter-out $(WANTED),$(FOUND)),other)

.PHONY: demo test check lint bench docs site build plugin-matrix rust-test python-test browser-test format clean

demo: $(VENV)/.built
	$(BIN)/python -m rsock demo

# Two tests at a time, which takes half as long as one after the other.
test: rust-test
	$(MAKE) --no-print-directory python-test ARGS="-n 2 $(ARGS)"

# Everything that CI runs.
check: lint test browser-test

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
	$(BIN)/python tests/builds.py
	$(MAKE) --no-print-directory site

# The guide as a web site. A warning is an error: a link that leads nowhere, a page in no list.
site: $(VENV)/.built
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html docs target/site

docs: site
	@echo "http://127.0.0.1:8000 until Ctrl-C"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory target/site 8000

bench: $(VENV)/.built
	$(INSTALL) --group bench
	cargo build --release --manifest-path benchmarks/peers/Cargo.toml --target-dir target/bench
	$(BIN)/python benchmarks/run.py $(BENCH)

build: $(VENV)/.built

# The plugin for pytest, with the oldest and the newest pytest, and beside other plugins.
plugin-matrix: $(VENV)/.built
	$(BIN)/python tests/plugin_matrix.py $(ARGS)

rust-test: toolchain
	cargo test --no-default-features --target-dir target/cargo $(ARGS)

# Arguments go into ARGS: make python-test ARGS="-k stop -x", make rust-test ARGS=stop.
python-test: $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS)

# JupyterLab, marimo and the site in Chromium, with pictures: make browser-test ARGS="--screenshots DIR".
browser-test: site $(VENV)/.browser
	MYPYPATH=tests $(BIN)/mypy tests/browser/*.py
	$(BIN)/python -m pytest tests/browser $(ARGS)

format: $(VENV)/.tools
	cargo fmt
	cargo fmt --manifest-path benchmarks/peers/Cargo.toml
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf target $(VENV)

# Versions are checked before anything is installed, which takes minutes.
.PHONY: interpreter toolchain

interpreter:
	@command -v $(PYTHON) >/dev/null || { echo "rsock needs Python 3.11 or later, and there is no $(PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rsock needs Python 3.11 or later, and \
	$(PYTHON) is %d.%d.%d; name another, as in: make PYTHON=python3.12" % sys.version_info[:3])'
	@test ! -d $(VENV) || echo "$(VENV) is of another interpreter, and is made anew."
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

toolchain:
	@command -v cargo >/dev/null || { echo "rsock needs Rust $(RUST) or later, and there is no cargo: see https://rustup.rs" >&2; exit 1; }
	@have=$$(rustc --version | cut -d' ' -f2); \
	test "$$(printf '%s\n' $(RUST) $$have | sort -V | head -n1)" = $(RUST) || \
	{ echo "rsock needs Rust $(RUST) or later, and rustc is $$have: rustup update" >&2; exit 1; }

ifneq ($(SAME),)
$(VENV)/.tools: interpreter
endif

$(VENV)/.tools: pyproject.toml | toolchain
	@echo "Installing the tools into $(VENV): one to two minutes the first time."
	@$(BIN)/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' || \
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(INSTALL) --group contributing
	@touch $@

$(VENV)/.browser: pyproject.toml | $(VENV)/.tools
	@echo "Installing JupyterLab, marimo and Playwright into $(VENV): a minute the first time."
	$(INSTALL) --group browser
	@touch $@

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES) | toolchain
	@echo "Building rsock in release mode: two to three minutes the first time."
	@# pip would say of the package rich, which is for the command line alone, that it ignores it.
	PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) CARGO_TARGET_DIR=$(MATURIN_TARGET) $(BIN)/maturin develop --release --quiet
	@touch $@
