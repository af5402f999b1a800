"""What agents and control plane cost under the shop's load, and whether they count it exactly.

The load generator pauses for a while before and after the window, so that its own count of
connections and that of the flows are of the same ones. Needs a lab with Ringfence in it:
`ringfence lab up && ringfence lab install`. Run: `.venv/bin/python bench/shop_load.py [seconds]`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ringfence.cli.client import CHOICE, connect
from ringfence.cli.progress import shown

COMMAND = str(Path(sys.executable).parent / "ringfence")
PAUSE = Path("/run/ringfence-lab/load.pause")
QUIET_SECONDS = 40  # two report intervals and some
PARTS = ("agent run", "connector run", "server --data-dir")


def lab_status() -> Any:
    words = [COMMAND, "lab", "status", "-o", "json"]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def load_count() -> int:
    """Connections that the load generator has opened so far."""
    return sum(counts["opened"] for counts in lab_status()["load"]["targets"].values())


def flow_count(external: str, since: str) -> int:
    """Connections from the load generator that Ringfence has counted since a time."""
    query = f'consumer.address = "{external}" and port = 31095'
    return sum(row["opened"] for row in connect().get("/flows", filter=query, since=since)["items"])


def processes() -> dict[int, str]:
    """The lab's Ringfence processes: what each is, by pid."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if "ringfence.cli.main" in words and not words.startswith("nsenter"):
            found |= {int(path.parent.name): part for part in PARTS if part in words}
    return found


def memory(pid: int) -> dict[str, int]:
    """Resident size now and at its highest, in MiB (proc_pid_status(5))."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    fields = {
        words[0]: int(words[1]) // 1024 for words in lines if words[0] in {"VmRSS:", "VmHWM:"}
    }
    return {"rss": fields["VmRSS:"], "peak": fields["VmHWM:"]}


def cpu_seconds(pid: int) -> float:
    """User and system time so far (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    os.environ[CHOICE] = "lab"
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    external = lab_status()["external"]
    with shown() as progress:
        PAUSE.touch()
        try:
            with progress.step("Quiet before"):
                time.sleep(QUIET_SECONDS)
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 10))
            opened, spent = load_count(), {pid: cpu_seconds(pid) for pid in processes()}
            PAUSE.unlink()
            with progress.step(f"Load for {seconds} s"):
                time.sleep(seconds)
            PAUSE.touch()
            used = {pid: cpu_seconds(pid) - before for pid, before in spent.items()}
            with progress.step("Quiet after"):
                time.sleep(QUIET_SECONDS)
            opened = load_count() - opened
        finally:
            PAUSE.unlink(missing_ok=True)
    print(f"load generator: {opened} connections; flows: {flow_count(external, since)}")
    for pid, part in sorted(processes().items(), key=lambda item: item[1]):
        size, share = memory(pid), 100 * used[pid] / seconds
        print(
            f"{part.split()[0]:10} {size['rss']:4} MiB resident, {size['peak']:4} MiB at most,"
            f" {share:.1f} % of a core"
        )


if __name__ == "__main__":
    main()
