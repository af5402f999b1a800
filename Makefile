# The commands of the house; CONTRIBUTING.md says when to use which.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: setup demo demo-down check test test-long fuzz bench-discovery bench-enforcement bench-flows bench-policy conformance fmt wire

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
	.venv/bin/pytest -n 2 --dist loadfile tests/property tests/integration
	.venv/bin/pytest -n 3 --dist loadfile tests/kernel
	.venv/bin/pytest tests/e2e

# Kubernetes' own NetworkPolicy suite on the lab, with Ringfence enforcing; FOCUS=default-deny for the
# specs of that name alone.
conformance: setup
	@trap '.venv/bin/ringfence lab down' EXIT; set -e; \
	.venv/bin/ringfence lab up --bare; \
	.venv/bin/ringfence lab install; \
	RINGFENCE_CONTEXT=lab .venv/bin/ringfence netpol enforce --cluster lab --yes; \
	.venv/bin/ringfence lab conformance $(if $(FOCUS),--focus '$(FOCUS)')

# A million connections by the evaluator and the oracle, ten thousand by the kernel, and a million
# broken inputs.
test-long: .venv fuzz
	RINGFENCE_EXAMPLES=4000 .venv/bin/pytest --timeout=0 tests/property/test_evaluate.py
	RINGFENCE_EXAMPLES=1000 .venv/bin/pytest --timeout=0 tests/property/test_order.py tests/property/test_reach.py
	RINGFENCE_EXAMPLES=10200 .venv/bin/pytest --timeout=0 tests/kernel/test_pairs.py

fuzz: .venv
	$(PY) -m tests.fuzz filters 1000000
	$(PY) -m tests.fuzz documents 100000
	$(PY) -m tests.property.fuzz_manifests --inputs 1000000

bench-policy: .venv
	@$(PY) -m bench.policy
	@$(PY) -m bench.impact

bench-discovery: .venv
	@$(PY) -m bench.discovery --jobs 2

bench-enforcement: .venv
	@$(PY) -m bench.enforcement
	@$(PY) -m bench.change_live
	@$(PY) -m bench.kubernetes_change
	@$(PY) -m bench.packet_cost
	@$(PY) -m bench.healing

bench-flows: .venv
	$(MAKE) -s -C bpf bench
	@$(PY) -m bench.figures

wire: .venv
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) scripts/generate_wire.py
