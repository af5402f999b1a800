"""Bring the lab up, tell how it is, and take it away."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ringfence.lab import (
    build,
    cgroups,
    controlplane,
    dns,
    images,
    kubectl,
    network,
    node,
    pki,
    processes,
    state,
)
from ringfence.lab.command import run
from ringfence.lab.config import PREFIX, LabConfig, NodeSpec
from ringfence.lab.errors import LabError
from ringfence.lab.machine import (
    Machine,
    boot,
    find,
    log_path,
    missing_directories,
    remove_directories,
    require_alive,
)
from ringfence.lab.processes import Process, identify
from ringfence.lab.progress import Progress
from ringfence.lab.relay import Forward
from ringfence.lab.shop import run as shop
from ringfence.lab.state import State

_API_TIMEOUT = 60.0  # seconds
_NODES_TIMEOUT = 90
_DNS_TIMEOUT = 60
_POLL = 0.2


def up(config: LabConfig, progress: Progress, *, bare: bool = False) -> None:
    """Start a fresh lab, with the shop unless ``bare``; a lab that runs is taken down first.

    So are the remains of one that was killed. Returns when everything in it is ready.
    """
    require_root()
    with _lock(config):
        _down(config, progress)
        programs = build.kubernetes(progress)
        archives = images.shop_images(progress)
        record = State(
            config.run / "state.json",
            config.nodes,
            config.cni,
            node.save_sysctls(),
            missing_directories(),
        )
        config.run.mkdir(mode=0o755, parents=True)
        record.write()
        with progress.step("Network and machines"):
            machines = _boot(config, record)
        with progress.step("Kubernetes control plane and nodes"):
            _start_cluster(config, machines, programs, archives, bare=bare)
        if not bare:
            with progress.step("Shop"):
                shop.start_server(machines["external"])
                shop.wait(config)
                shop.start_load(config, machines["external"])


def down(config: LabConfig, progress: Progress, *, logs: bool = False) -> None:
    """Take the lab away, whatever state it is in; LabError if something of it stays.

    Its logs are kept until the next time, unless ``logs`` says that they go too.
    """
    require_root()
    with _lock(config):
        _down(config, progress)
        if logs:
            shutil.rmtree(config.logs, ignore_errors=True)


def reboot(config: LabConfig, name: str, progress: Progress) -> None:
    """Stop a node and start it again: of all that was on it, its disk alone stays.

    Returns when its kubelet runs, before its pods do; raises LabError.
    """
    config, record = running(config)
    with _lock(config):
        spec, _ = _find_node(config, record, name)
        programs = build.kubernetes(progress)
        with progress.step(f"Stop {name}"):
            processes.kill(p for p in record.processes if p.name.startswith(f"{name}/"))
            record.forget_ended()
            cgroups.remove(spec.cgroup)
        with progress.step(f"Start {name}"):
            network.rebuild(config, spec)
            booted = boot(config, spec, record)
            node.start_units(config, booted)
            node.start_runtime(config, booted, ())
            node.start_kubelet(config, booted, programs)


def restart_runtime(config: LabConfig, name: str, progress: Progress, seconds: float) -> None:
    """Kill a node's container runtime, and start it again after so many seconds; pods go on."""
    config, record = running(config)
    with _lock(config):
        _, found = _find_node(config, record, name)
        started = [p for p in record.processes if p.name == f"{name}/containerd" and p.alive]
        with progress.step(f"Restart the container runtime of {name}"):
            processes.kill(identify("", processes.child(entering.pid)) for entering in started)
            time.sleep(seconds)
            record.forget_ended()
            node.start_runtime(config, found, ())


def _find_node(config: LabConfig, record: State, name: str) -> tuple[NodeSpec, Machine]:
    for spec in config.node_specs:
        if spec.name == name:
            return spec, find(config, record, name)
    nodes = ", ".join(spec.name for spec in config.node_specs)
    raise LabError(f"the lab has no node {name!r}; it has {nodes}")


def running(config: LabConfig) -> tuple[LabConfig, State]:
    """Return the running lab's configuration and record; LabError if there is none."""
    require_root()
    record = state.load(config.run / "state.json")
    if record is None:
        raise LabError("no lab is running; start one with `ringfence lab up`")
    found = LabConfig(nodes=record.nodes, cni=record.cni, run=config.run, data=config.data)
    return found, record


def leftovers(config: LabConfig, recorded: Sequence[Process] = ()) -> list[str]:
    """Say what of the lab exists: processes, namespaces, mounts, cgroups."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = (PREFIX, str(config.run), str(config.data))
    return [
        *(f"process {p.pid} ({p.name})" for p in recorded if p.alive),
        *(f"network namespace {path.name}" for path in network.namespaces()),
        *(f"mount {line.split()[4]}" for line in mounts if any(o in line for o in ours)),
        *(f"cgroup {path}" for path in cgroups.existing()),
        *(f"directory {path}" for path in (config.run, config.data) if path.exists()),
    ]


def add_relay(record: State, netns: str, forwards: Sequence[Forward]) -> Process:
    """Start a relay on the host that makes ports inside the lab reachable on loopback."""
    argv = [sys.executable, "-m", "ringfence.lab.relay", f"/run/netns/{netns}"]
    return _spawn_on_host(record, "relay", [*argv, *(str(f) for f in forwards)])


def require_root() -> None:
    """Raise LabError if this is not root."""
    if os.geteuid():
        raise LabError("the lab makes namespaces and mounts: run this as root, e.g. with sudo")


def _boot(config: LabConfig, record: State) -> dict[str, Machine]:
    network.build(config)
    for spec in config.machines:
        (config.data / spec.name).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        booted = pool.map(lambda spec: boot(config, spec, record), config.machines)
        return {machine.spec.name: machine for machine in booted}


def _start_cluster(
    config: LabConfig,
    machines: dict[str, Machine],
    programs: Path,
    archives: Sequence[Path],
    *,
    bare: bool,
) -> None:
    """Start everything at once; each part waits for what it needs."""
    authority = pki.Authority(config.run / "pki")
    control = machines["control"]
    started = controlplane.start(config, control, programs, authority)
    target = Forward(config.api_port, str(config.control.address), controlplane.API_PORT)
    started.append(add_relay(control.state, config.control.netns, [target]))
    objects = [*_nodes(config), *dns.manifests(config)]
    if not bare:
        objects += shop.objects(config)

    def start_node(spec: NodeSpec) -> None:
        machine = machines[spec.name]
        node.start_runtime(config, machine, archives)
        node.configure_kubelet(config, spec, authority)
        node.start_kubelet(config, machine, programs)

    with ThreadPoolExecutor() as pool:
        nodes = [pool.submit(start_node, spec) for spec in config.node_specs]
        _wait_api(config, control.state, started)
        kubectl.apply(config, objects)
        for future in nodes:
            future.result()
    ready = ["--for=condition=Ready", "node", "--all", f"--timeout={_NODES_TIMEOUT}s"]
    kubectl.kubectl(config, "wait", *ready)
    resolving = ["--for=condition=Available", "--namespace=kube-system", "deployment/coredns"]
    kubectl.kubectl(config, "wait", *resolving, f"--timeout={_DNS_TIMEOUT}s")


def _nodes(config: LabConfig) -> list[dict[str, object]]:
    """Node objects made ahead of their kubelets, which carry the pod network of each."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": n.name, "labels": {"kubernetes.io/hostname": n.name}},
            "spec": {"podCIDR": str(n.pods), "podCIDRs": [str(n.pods)]},
        }
        for n in config.node_specs
    ]


def _wait_api(config: LabConfig, record: State, needed: Sequence[Process]) -> None:
    deadline = time.monotonic() + _API_TIMEOUT
    while True:
        require_alive(record, needed)
        try:
            kubectl.kubectl(config, "get", "--raw=/readyz")
        except LabError as error:
            if time.monotonic() > deadline:
                raise LabError(f"the Kubernetes API is not ready; see {config.run}") from error
            time.sleep(_POLL)
        else:
            return


def _spawn_on_host(record: State, name: str, argv: Sequence[str]) -> Process:
    log = log_path(record.path.parent, name)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    process = identify(name, popen.pid)
    record.add(process)
    return process


def _down(config: LabConfig, progress: Progress) -> None:
    record = state.load(config.run / "state.json")
    recorded = record.processes if record else []
    if not leftovers(config, recorded):
        return
    with progress.step("Take away the lab that is there"):
        inodes = {path.stat().st_ino for path in network.namespaces()}
        processes.kill(recorded)
        processes.kill(processes.in_network_namespaces(inodes))
        inside = {pid for group in cgroups.existing() for pid in cgroups.members(group)}
        processes.kill(identify("", pid) for pid in inside)
        network.remove()
        cgroups.remove()
        if record:
            node.restore_sysctls(record.sysctls)
            remove_directories(record.directories)
        _keep_logs(config)
        _remove_data(config)
        for directory in (config.data, config.run):
            shutil.rmtree(directory, ignore_errors=True)
        if left := leftovers(config, recorded):
            raise LabError("these parts of the lab cannot be removed: " + ", ".join(left))


def _remove_data(config: LabConfig) -> None:
    """Remove the machines' data side by side: images are tens of thousands of files on a node."""
    with ThreadPoolExecutor() as pool, suppress(LabError):  # what stays is told afterwards
        list(pool.map(lambda data: run(["rm", "-rf", data]), config.data.glob("*")))


def _keep_logs(config: LabConfig) -> None:
    shutil.rmtree(config.logs, ignore_errors=True)
    config.logs.mkdir(parents=True)
    for log in config.run.glob("*.log"):
        shutil.move(log, config.logs)


@contextmanager
def _lock(config: LabConfig) -> Iterator[None]:
    """One command at a time changes the lab; the lock goes with its process."""
    path = config.run.with_suffix(".lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another command is changing the lab; wait for its end") from error
        yield
