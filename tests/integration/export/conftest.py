"""Receivers that have to be made first: kept by version in the user's cache directory."""

import os
import subprocess
from pathlib import Path

import pytest

from ringfence.lab.build import entry, required_version
from ringfence.lab.config import cache_dir

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """A real OpenTelemetry Collector, built from the Go module proxy when missing (2 minutes)."""
    module = _HERE / "otelcol"
    version = required_version(module / "go.mod", "go.opentelemetry.io/collector/otelcol")
    program = cache_dir() / f"otelcol-{version}"
    if not program.exists():
        with entry(program) as made:
            argv = ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(made), "."]
            flags = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
            subprocess.run(argv, cwd=module, env=os.environ | flags, check=True)
    return program
