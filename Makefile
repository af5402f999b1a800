# The commands of the house; CONTRIBUTING.md says when to use which.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: setup demo demo-down check test bench-flows fmt wire

setup:
	@scripts/setup

demo: setup
	@.venv/bin/ringfence demo

demo-down:
	@.venv/bin/ringfence lab down --all

fmt: .venv
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

check: .venv
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pytest tests/unit tests/golden

# A process each: the embedded flow stores of one leave hundreds of idle threads and open files.
test: setup check
	.venv/bin/pytest tests/property tests/integration
	.venv/bin/pytest tests/kernel
	.venv/bin/pytest tests/e2e

bench-flows: .venv
	$(MAKE) -s -C bpf bench
	@$(PY) -m bench.figures

wire: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) scripts/generate_wire.py
