"""What a bench of flows measured, beside what it is to reach; `make bench-flows` runs them all.

A bench is a module of this folder with `figures`, named in BENCHES.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

BENCHES = (
    "flow_cost",
    "flow_volume",
    "flow_latency",
    "flow_race",
    "flow_nat",
    "agent_cost",
    "flow_store",
)


class Figure(NamedTuple):
    what: str
    target: str
    """Empty where there is none."""
    measured: str
    reached: bool = True


def load() -> str:
    """How busy the machine is besides."""
    return f"load {os.getloadavg()[0]:.1f}"


def machine() -> str:
    """Which one the figures are of."""
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = names[0].partition(":")[2].strip() if names else os.uname().machine
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {os.uname().release}, {load()}"
    )


def main() -> None:
    print(machine())
    print(f"{'FIGURE':<60}{'TARGET':>12}  MEASURED", flush=True)
    missed = False
    for name in BENCHES:
        measured: Iterator[Figure] = import_module(f"bench.{name}").figures()
        for what, target, value, reached in measured:
            print(f"{what:<60}{target:>12}  {value}{'' if reached else '  MISSED'}", flush=True)
            missed |= not reached
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
