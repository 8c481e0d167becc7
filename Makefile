# Thin targets over scripts/. Everything is built and installed under target/.
.PHONY: help demo test lint header toolchain stage wheel gpu-kit bench mutants fuzz clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       build and run three modules over two mailboxes, on the GPU too if there is one"
	@echo "make test       every check of the project"
	@echo "make lint       formatting and clippy"
	@echo "make header     write the generated headers"
	@echo "make stage      install the library into target/stage"
	@echo "make wheel      build the Python package's wheel into target/wheels"
	@echo "make toolchain  install nvcc, cmake and the cargo tools where the machine lacks them"
	@echo "make gpu-kit    target/gpu-kit: tests and examples for a machine with a GPU and no Rust"
	@echo "make bench      measure the library beside the limits of this machine"
	@echo "make mutants    check that the tests catch committed mutations"
	@echo "make fuzz       half a minute of fuzzing sequences of C calls, under AddressSanitizer"
	@echo "make clean      remove what was built, not what was installed"

demo test stage wheel gpu-kit bench mutants fuzz:
	@scripts/$@.sh

toolchain:
	@scripts/toolchain.sh cuda cmake cargo-tools python

header:
	@scripts/toolchain.sh cargo-tools
	@scripts/header.sh

lint:
	@echo "== format"
	@cargo fmt --check
	@echo "== clippy"
	@cargo clippy --all-targets --locked -- -D warnings

clean:
	@if [ -d target ]; then find target -mindepth 1 -maxdepth 1 ! -name toolchain ! -name tools -exec rm -rf {} +; fi
