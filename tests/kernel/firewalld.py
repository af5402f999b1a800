"""A real firewalld in a network namespace, on a message bus of its own.

Debian's python3-firewall is all of it but its scripts and its service, which nobody wants started
on a machine that runs tests. What `firewall-cmd` does, its client does here.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.apiserver import process
from tests.kernel.netns import Namespace

PYTHON = "/usr/bin/python3"
"""Debian's, which has firewalld."""
TABLE = "inet firewalld"
_KINDS = ("helpers", "icmptypes", "ipsets", "policies", "services", "zones")
_TARGETS = {"block": "%%REJECT%%", "drop": "DROP", "trusted": "ACCEPT"}
"""The zones that firewalld cannot do without."""
_DAEMON = """
import sys
from firewall import config
config.set_system_config_paths(sys.argv[1])
config.set_default_config_paths(sys.argv[2])
from firewall.server import server
server.run_server()
"""


@dataclass(frozen=True)
class Firewalld:
    """One that runs; by default it closes all but the ports of its zone `public`."""

    where: Namespace
    bus: str

    def ask(self, method: str) -> None:
        """Call a method of firewalld's own client."""
        code = f"from firewall.client import FirewallClient; FirewallClient().{method}()"
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus}
        subprocess.run([PYTHON, "-c", code], env=environment, check=True, timeout=60)

    def rules(self) -> str:
        return self.where.run("nft", "-s", "list", "table", *TABLE.split())

    def stands(self) -> bool:
        return f"table {TABLE}" in self.where.run("nft", "list", "tables")


@contextlib.contextmanager
def firewalld(where: Namespace, directory: Path, ports: Sequence[int]) -> Iterator[Firewalld]:
    """A firewalld that opens these TCP ports."""
    for config in ("system", "default"):
        for kind in _KINDS:
            (directory / config / kind).mkdir(parents=True)
    zones = directory / "default" / "zones"
    for name, target in _TARGETS.items():
        (zones / f"{name}.xml").write_text(f'<zone target="{target}"></zone>')
    opened = "".join(f'<port port="{port}" protocol="tcp"/>' for port in ports)
    (zones / "public.xml").write_text(f"<zone>{opened}</zone>")
    it = Firewalld(where, f"unix:path={directory / 'bus'}")
    bus = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={it.bus}"]
    run = ["ip", "netns", "exec", where.name, "env", f"DBUS_SYSTEM_BUS_ADDRESS={it.bus}", PYTHON]
    configs = [str(directory / config) for config in ("system", "default")]
    with process(bus, directory / "bus.log"):
        _await((directory / "bus").exists)
        with process([*run, "-c", _DAEMON, *configs], directory / "firewalld.log"):
            _await(it.stands)
            it.ask("getDefaultZone")  # answered once all rules are there
            yield it


def _await(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < until, "no firewalld after 30 s"
        time.sleep(0.1)
