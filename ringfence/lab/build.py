"""What a lab is made of and is slow to make: kept by version in the user's cache directory."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.lab.command import run, run_noting
from ringfence.lab.config import cache_dir
from ringfence.lab.progress import Note, Progress

_HERE = Path(__file__).parent
_REQUIRE = re.compile(r"^\s*(?:require\s+)?(\S+) (v\S+)$", re.MULTILINE)
_KUBERNETES = "k8s.io/kubernetes"
_GINKGO = "github.com/onsi/ginkgo/v2/ginkgo"
_POLICY_API = "sigs.k8s.io/network-policy-api"
_DEFINITION = "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml"
_COREDNS = "github.com/coredns/coredns"
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


@contextmanager
def entry(path: Path) -> Iterator[Path]:
    """Make a cache entry: yields a temporary path beside it, which becomes it when all went well.

    The temporary path is on the same file system, so the entry appears whole or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as directory:
        made = Path(directory) / path.name
        yield made
        if path.is_dir():
            shutil.rmtree(path)
        made.rename(path)


def kubernetes(progress: Progress) -> Path:
    """Directory of the Kubernetes programs, built from the Go module proxy when missing."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    package = "k8s.io/component-base/version"
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = [f"-X {package}.{name}={value}" for name, value in stamps.items()]
    packages = [f"{_KUBERNETES}/cmd/{name}" for name in KUBERNETES_PROGRAMS]
    path = cache_dir() / f"kubernetes-{version}"

    def make(note: Note) -> None:
        with entry(path) as made:
            _go_build(_HERE / "kubernetes", packages, flags, made, note)

    return _cached(path, f"Build Kubernetes {version} (about 5 minutes)", make, progress)


def network_policy_suite(progress: Progress) -> Path:
    """Directory of Kubernetes' own NetworkPolicy specs, `netpol.test`, of what runs them, `ginkgo`,
    and of what they run, `agnhost`; built from the Go module proxy when missing."""
    module, version = _HERE / "kubernetes", kubernetes_version()
    digest = hashlib.sha256((module / "netpol/netpol_test.go").read_bytes()).hexdigest()[:16]
    path = cache_dir() / f"networkpolicy-suite-{version}-{digest}"

    def make(note: Note) -> None:
        with entry(path) as made:
            _go_build(module, [f"{_KUBERNETES}/test/images/agnhost", _GINKGO], [], made, note)
            _go(module, ["test", "-c", "./netpol"], [], made, note)

    return _cached(
        path, f"Build the NetworkPolicy suite of {version} (about 1 minute)", make, progress
    )


def cluster_network_policy_suite(progress: Progress) -> Path:
    """Directory of the network-policy-api's own conformance tests, `conformance.test`, of the
    definition that they need, `definition.yaml`, and of the pods that they make, `manifests.yaml`;
    built from the Go module proxy when missing."""
    module = _HERE / "policyapi"
    version = required_version(module / "go.mod", _POLICY_API)
    path = cache_dir() / f"clusternetworkpolicy-suite-{version}"

    def make(note: Note) -> None:
        with entry(path) as made:
            _go(module, ["test", "-c", f"{_POLICY_API}/conformance"], [], made, note)
            source = run(["go", f"-C={module}", "list", "-m", "-f={{.Dir}}", _POLICY_API]).strip()
            shutil.copy(Path(source) / _DEFINITION, made / "definition.yaml")
            shutil.copy(Path(source) / "conformance/base/manifests.yaml", made)

    title = f"Build the ClusterNetworkPolicy suite {version} (about 2 minutes)"
    return _cached(path, title, make, progress)


def coredns(progress: Progress) -> Path:
    """Directory of CoreDNS, built from the Go module proxy when missing."""
    version = required_version(_HERE / "coredns/go.mod", _COREDNS)
    path = cache_dir() / f"coredns-{version}"

    def make(note: Note) -> None:
        with entry(path) as made:
            _go_build(_HERE / "coredns", ["."], [], made, note)

    return _cached(path, f"Build CoreDNS {version} (about 1 minute)", make, progress)


def kubernetes_version() -> str:
    """Version of Kubernetes that the lab runs."""
    return required_version(_HERE / "kubernetes/go.mod", _KUBERNETES)


def required_version(go_mod: Path, module: str) -> str:
    """Version of ``module`` that a go.mod requires."""
    versions: dict[str, str] = dict(_REQUIRE.findall(go_mod.read_text()))
    return versions[module]


def _cached(path: Path, title: str, make: Callable[[Note], None], progress: Progress) -> Path:
    if not path.exists():
        with progress.step(title) as note:
            make(note)
    return path


def _go_build(module: Path, packages: list[str], flags: list[str], out: Path, note: Note) -> None:
    """Build ``packages`` of a Go module into a directory.

    Go prints each package that it compiles; their count is the progress.
    """
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        compiled += 1
        note(f"{compiled} packages, {line}")

    _go(module, ["build", "-v", *packages], flags, out, count)


def _go(module: Path, words: list[str], flags: list[str], out: Path, note: Note) -> None:
    """Have Go write programs into a directory, statically linked."""
    out.mkdir(exist_ok=True)
    verb, *rest = words
    options = ["-trimpath", "-buildvcs=false", f"-ldflags={' '.join(['-s', '-w', *flags])}"]
    argv = ["go", verb, *options, "-o", f"{out}/", *rest]
    run_noting(argv, note, cwd=module, env={"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"})
