"""What a bench of flows measured, beside what it is to reach; `make bench-flows` runs them all.

A bench is a module of this folder with `figures`, named in BENCHES.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

BENCHES = ("flow_cost", "flow_volume", "flow_latency", "flow_race")


class Figure(NamedTuple):
    what: str
    target: str
    """Empty where there is none."""
    measured: str
    reached: bool = True


def main() -> None:
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
