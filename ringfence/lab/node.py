"""One Kubernetes node: containerd, kubelet and kube-proxy on a machine of the lab."""

import json
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from ringfence.kernel.cri import OPTIONS
from ringfence.lab import cgroups, controlplane, images, network, pki
from ringfence.lab.command import run
from ringfence.lab.config import Cni, LabConfig, NodeSpec
from ringfence.lab.errors import LabError
from ringfence.lab.machine import Machine, log_end, require_alive
from ringfence.lab.processes import Process

_CONTAINERD_TIMEOUT = 60.0  # seconds
_POLL = 0.1  # seconds
_SOCKET = "/run/containerd/containerd.sock"
_VERSION = "/runtime.v1.RuntimeService/Version"
_INDEXES = ("manifest.json", "index.json")
"""What lists the images of an archive: of `docker save`, of an OCI layout."""

HOST_SYSCTLS = (
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
)
"""Settings of the whole host that a kubelet changes when it starts."""


def start_units(config: LabConfig, machine: Machine) -> None:
    """Do as systemd does before it starts a kubelet: run what that requires; LabError if one fails.

    Of each unit are read `ConditionPathExists=` and `ExecStart=`.
    """
    units = config.data / machine.spec.name / "etc/systemd/system/kubelet.service.requires"
    for unit in sorted(units.glob("*.service")):
        settings = [line.partition("=")[::2] for line in unit.read_text().splitlines()]
        conditions = [f"test -e {v} || exit 0" for k, v in settings if k == "ConditionPathExists"]
        starts = [command for name, command in settings if name == "ExecStart"]
        machine.run(["sh", "-euc", "\n".join([*conditions, *starts])])


def start_runtime(config: LabConfig, machine: Machine, archives: Sequence[Path]) -> Process:
    """Start containerd with the lab's CNI configuration, and load images into it."""
    spec = _node(machine)
    cgroups.make(spec.cgroup)
    directory = config.data / spec.name
    (directory / "containerd.toml").write_text(_containerd_config())
    (directory / "etc/cni/net.d/10-lab.conflist").write_text(json.dumps(_cni_config(config, spec)))
    argv = ["containerd", f"--config={directory / 'containerd.toml'}", "--log-level=warn"]
    process = machine.spawn("containerd", argv)
    _await_runtime(machine, process)
    for archive in archives:
        load_image(machine, archive)
    return process


def _await_runtime(machine: Machine, process: Process) -> None:
    """Wait until kubelets are answered, who ask once and end.

    After a boot containerd talks before its CRI part has read what pods there were.
    """
    socket = f"unix:/proc/{machine.init}/root{_SOCKET}"
    deadline = time.monotonic() + _CONTAINERD_TIMEOUT
    while True:
        require_alive(machine.state, [process])
        try:
            with grpc.insecure_channel(socket, options=OPTIONS) as channel:
                channel.unary_unary(_VERSION, bytes, bytes)(b"", timeout=1)
            break
        except grpc.RpcError as error:
            if time.monotonic() > deadline:
                log = log_end(machine.state, process)
                raise LabError(f"{process.name} does not answer kubelets: {log}") from error
            time.sleep(_POLL)


def check_archive(archive: Path) -> None:
    """Raise LabError for a file that is no image archive (docker save or OCI)."""
    try:
        with tarfile.open(archive) as held:
            if any(Path(member.name).name in _INDEXES for member in held):
                return
    except (OSError, EOFError, tarfile.TarError) as error:
        raise LabError(f"{archive} is not an image archive: {error}") from error
    raise LabError(f"{archive} is not an image archive: it has no {' or '.join(_INDEXES)}")


def load_image(machine: Machine, archive: Path) -> None:
    """Load an image archive (docker save or OCI) into a node's container runtime."""
    machine.run(["ctr", "--namespace=k8s.io", "images", "import", archive.resolve()])


def configure_kubelet(config: LabConfig, spec: NodeSpec, authority: pki.Authority) -> None:
    """Write what kubelet and kube-proxy read."""
    directory = config.data / spec.name
    api_url = f"https://{config.control.address}:{controlplane.API_PORT}"
    user = f"system:node:{spec.name}"
    pair = authority.issue(spec.name, user, "system:nodes", [spec.name, str(spec.address)])
    authority.kubeconfig(directory / "kubelet.kubeconfig", api_url, pair)
    proxy = authority.issue(f"{spec.name}-proxy", "system:kube-proxy", "system:kube-proxy")
    authority.kubeconfig(directory / "proxy.kubeconfig", api_url, proxy)
    (directory / "resolv.conf").write_text(f"nameserver {config.dns_address}\n")
    settings = json.dumps(_kubelet_config(config, spec, pair, authority.cert))
    (directory / "kubelet.json").write_text(settings)


def start_kubelet(config: LabConfig, machine: Machine, programs: Path) -> list[Process]:
    """Start kubelet and kube-proxy as configured; they wait by themselves for the API server."""
    spec = _node(machine)
    directory = config.data / spec.name
    return [
        machine.spawn(
            "kubelet",
            [
                programs / "kubelet",
                f"--config={directory / 'kubelet.json'}",
                f"--kubeconfig={directory / 'kubelet.kubeconfig'}",
                f"--hostname-override={spec.name}",
                f"--node-ip={spec.address}",
            ],
        ),
        machine.spawn(
            "kube-proxy",
            [
                programs / "kube-proxy",
                f"--kubeconfig={directory / 'proxy.kubeconfig'}",
                f"--hostname-override={spec.name}",
                f"--cluster-cidr={config.pods}",
                "--proxy-mode=iptables",
                # The limits of conntrack are the host's: leave them as they are.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
            ],
        ),
    ]


def save_sysctls() -> dict[str, str]:
    """Read the host's settings that kubelets change."""
    return {name: run(["sysctl", "-n", name]).strip() for name in HOST_SYSCTLS}


def restore_sysctls(saved: dict[str, str]) -> None:
    """Put the host's settings back."""
    for name, value in saved.items():
        run(["sysctl", "-qw", f"{name}={value}"])


def _node(machine: Machine) -> NodeSpec:
    assert isinstance(machine.spec, NodeSpec)
    return machine.spec


def _containerd_config() -> str:
    """Configuration of containerd (containerd-config.toml(5) and its CRI plugin).

    A lab may run without CAP_SYS_RESOURCE, hence no lowering of OOM scores.
    """
    return f"""version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.reference("pause")}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


def _cni_config(config: LabConfig, spec: NodeSpec) -> dict[str, object]:
    """A veth for each pod, addresses from the node's own subnet."""
    mtu = network.OVERLAY_MTU if config.cni is Cni.OVERLAY else network.MTU
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": str(spec.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "mtu": mtu, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "0.4.0", "name": "lab", "plugins": plugins}


def _kubelet_config(
    config: LabConfig, spec: NodeSpec, pair: pki.KeyPair, authority: Path
) -> dict[str, object]:
    """Kubelet settings (kubelet.config.k8s.io/v1beta1, KubeletConfiguration)."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{spec.cgroup}",
        "clusterDNS": [str(config.dns_address)],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        # The disk is the host's: nothing is evicted, and no loaded image is collected.
        "evictionHard": {"memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "nodeStatusUpdateFrequency": "5s",
        "oomScoreAdj": 0,
        "resolvConf": str(config.data / spec.name / "resolv.conf"),
        "rotateCertificates": False,
        "tlsCertFile": str(pair.cert),
        "tlsPrivateKeyFile": str(pair.key),
    }
