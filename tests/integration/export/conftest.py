"""Receivers that have to be made first: kept by version in the user's cache directory."""

import os
import re
import shutil
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


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Apache Kafka's broker from Maven Central, fetched when missing (46 MB)."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("a Kafka broker needs Java 11 or newer, and Maven to fetch it")
    pom = _HERE / "kafka" / "pom.xml"
    version = re.search(r"kafka_2.13</artifactId>\s*<version>(.*?)<", pom.read_text())
    assert version
    jars = cache_dir() / f"kafka-{version[1]}"
    if not jars.exists():
        with entry(jars) as made:
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
            argv = ["mvn", "-B", "-q", "-f", str(pom), *goal, f"-DoutputDirectory={made}"]
            subprocess.run(argv, check=True)
    return jars
