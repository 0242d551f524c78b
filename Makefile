# make demo | test | lint | bench | clean. Each builds the environment first where it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: demo test lint bench clean toolchain cross
.DELETE_ON_ERROR:

demo: .venv/installed toolchain
	@$(BIN)/python examples/01_digits/demo.py

test: lint cross .venv/torch
	@$(BIN)/python -m pytest -q -n 2

lint: .venv/installed
	@$(BIN)/ruff check
	@$(BIN)/mypy

bench: .venv/benchmark toolchain
	@$(BIN)/python benchmarks/x86.py

# The environment stays: what is built from the sources goes.
clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

.venv/installed: pyproject.toml
	@echo "setting up .venv (about 1 GB, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) -e '.[dev,examples]'
	@touch $@

.venv/benchmark: .venv/installed
	@$(PIP_INSTALL) -e '.[benchmark]'
	@touch $@

.venv/torch: .venv/installed
	@$(PIP_INSTALL) -e '.[torch]'
	@touch $@

# A C compiler links the generated library. Those of other machines and their emulators serve the other targets: what is
# missing is installed where that is allowed; else the tests that need it are skipped, and say so.
toolchain:
	@$(call install,cc,gcc libc6-dev)

cross: toolchain
	@$(call install,aarch64-linux-gnu-gcc,gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
	@$(call install,arm-linux-gnueabihf-gcc,gcc-arm-linux-gnueabihf libc6-dev-armhf-cross)
	@$(call install,qemu-aarch64,qemu-user)
	@$(call install,arm-none-eabi-gcc,gcc-arm-none-eabi libnewlib-arm-none-eabi)
	@$(call install,qemu-system-arm,qemu-system-arm)
	@$(call install,riscv64-unknown-elf-gcc,gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf)
	@$(call install,qemu-system-riscv32,qemu-system-misc)
	@$(call install,clang,clang)

define install
command -v $(1) >/dev/null || { \
    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
        echo "installing $(2)"; apt-get -qq update && apt-get -qq install -y --no-install-recommends $(2) >/dev/null; \
    else \
        echo "no $(1): what needs it fails or is skipped; install $(2)" >&2; \
    fi; }
endef
