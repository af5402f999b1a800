"""The Kubernetes control plane: etcd, API server, controller manager and scheduler."""

from pathlib import Path

from ringfence.lab import pki
from ringfence.lab.config import LabConfig
from ringfence.lab.machine import Machine
from ringfence.lab.processes import Process

API_PORT = 6443
_ETCD = "http://127.0.0.1:2379"
_ADMINS = "system:masters"


def start(
    config: LabConfig, machine: Machine, programs: Path, authority: pki.Authority
) -> list[Process]:
    """Start the control plane's processes; each waits by itself for those it needs."""
    api_url = f"https://{config.control.address}:{API_PORT}"
    tokens = pki.write_key(config.run / "pki/service-accounts.key")
    hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts += [f"{hosts[-1]}.cluster.local", "localhost", "127.0.0.1"]
    hosts += [str(config.control.address), str(config.api_address)]
    server = authority.issue("kube-apiserver", "kube-apiserver", _ADMINS, hosts)
    admin = authority.issue("admin", "admin", _ADMINS)
    authority.kubeconfig(config.kubeconfig, f"https://127.0.0.1:{config.api_port}", admin)

    def kubeconfig(component: str) -> Path:
        pair = authority.issue(component, f"system:{component}", f"system:{component}")
        return authority.kubeconfig(config.run / "pki" / f"{component}.kubeconfig", api_url, pair)

    manager = kubeconfig("kube-controller-manager")
    scheduler = kubeconfig("kube-scheduler")
    apiserver = _apiserver_flags(config, authority, server, tokens)
    return [
        machine.spawn("etcd", ["etcd", *_etcd_flags(config)]),
        machine.spawn("kube-apiserver", [programs / "kube-apiserver", *apiserver]),
        machine.spawn(
            "kube-controller-manager",
            [
                programs / "kube-controller-manager",
                f"--kubeconfig={manager}",
                f"--root-ca-file={authority.cert}",
                f"--service-account-private-key-file={tokens}",
                f"--service-cluster-ip-range={config.services}",
                "--use-service-account-credentials",
                "--leader-elect=false",
            ],
        ),
        machine.spawn(
            "kube-scheduler",
            [programs / "kube-scheduler", f"--kubeconfig={scheduler}", "--leader-elect=false"],
        ),
    ]


def _etcd_flags(config: LabConfig) -> list[str]:
    return [
        f"--data-dir={config.data / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ]


def _apiserver_flags(
    config: LabConfig, authority: pki.Authority, server: pki.KeyPair, tokens: Path
) -> list[str]:
    return [
        f"--advertise-address={config.control.address}",
        "--allow-privileged",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={authority.cert}",
        "--enable-admission-plugins=NodeRestriction",
        f"--etcd-servers={_ETCD}",
        f"--kubelet-certificate-authority={authority.cert}",
        f"--kubelet-client-certificate={server.cert}",
        f"--kubelet-client-key={server.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--secure-port={API_PORT}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={tokens}",
        f"--service-account-signing-key-file={tokens}",
        f"--service-cluster-ip-range={config.services}",
        f"--tls-cert-file={server.cert}",
        f"--tls-private-key-file={server.key}",
    ]
