"""Container images of the lab, built from ordinary Dockerfiles with no engine and no registry.

An image is an archive in the cache, named by a hash of all that went into it.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ringfence.lab import build
from ringfence.lab.command import run, run_noting
from ringfence.lab.config import cache_dir
from ringfence.lab.errors import LabError
from ringfence.lab.progress import Note, Progress

ROOT = Path(__file__).parents[2]
"""The checkout: images are built from its source."""
_DOCKERFILES = ROOT / "deploy/images"
_SUITE = "bookworm"
_PYTHON = "3.11"  # of that Debian suite
_PLATFORM = "x86_64-manylinux_2_36"  # its glibc
_KEPT_ARCHIVES = 3  # of each image
_HASH = 16  # hexadecimal digits of an input hash that name an archive
_IGNORED = ("__pycache__",)


def reference(name: str) -> str:
    """Name of one of the lab's images, as in a pod's specification."""
    return f"localhost/ringfence/{name}:lab"


def shop_images(progress: Progress) -> list[Path]:
    """Archives of what every lab runs: the pause, CoreDNS and shop images."""
    base = _base(progress)
    program = Path(__file__).parent / "shop/program.py"
    return [
        _image("pause", {}, progress, base),
        _image("coredns", {"coredns": build.coredns(progress) / "coredns"}, progress),
        _image("shop", {"program.py": program}, progress, base),
    ]


def ringfence_image(progress: Progress) -> Path:
    """Archive of the image of agent and connector."""
    objects = sorted((ROOT / "build").glob("*.bpf.o"))
    if not objects:
        raise LabError("the BPF objects are missing; run `make -C bpf`")
    contents = {"wheels": _wheels(progress), "ringfence": ROOT / "ringfence"}
    contents |= {f"build/{file.name}": file for file in objects}
    return _image("ringfence", contents, progress, _base(progress))


def agnhost_image(progress: Progress) -> Path:
    """Archive of the image that Kubernetes' own end-to-end tests run in pods."""
    beside = Path(__file__).parent / "agnhost"
    contents = {name: beside / name for name in ("start.sh", "sctp.py")}
    contents["agnhost"] = build.network_policy_suite(progress) / "agnhost"
    return _image("agnhost", contents, progress, _base(progress))


def _base(progress: Progress) -> Path:
    """Archive of the base image: a minimal Debian and the packages of its list."""
    packages = (_DOCKERFILES / "base/packages.txt").read_text().split()
    digest = hashlib.sha256(" ".join([_SUITE, *packages]).encode()).hexdigest()[:_HASH]
    rootfs = cache_dir() / f"base-{_SUITE}-{digest}.tar"
    if not rootfs.exists():
        with progress.step(f"Debian {_SUITE} root file system (about 40 seconds)") as note:
            _debootstrap(packages, rootfs, note)
    return _image("base", {"rootfs.tar": rootfs}, progress)


def _debootstrap(packages: list[str], rootfs: Path, note: Note) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        options = ["--variant=minbase", f"--include={','.join(packages)}"]
        run_noting(["debootstrap", *options, _SUITE, root], note, env={})
        for useless in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / useless, ignore_errors=True)
        with build.entry(rootfs) as made:
            run(["tar", "--sort=name", "--mtime=@0", "-C", root, "-cf", made, "."])


def _wheels(progress: Progress) -> Path:
    """Directory of the locked packages for the image's own Python, fetched outside the build."""
    lock = _DOCKERFILES / "ringfence/requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:_HASH]
    path = cache_dir() / f"wheels-{digest}"
    if not path.exists():
        target = [f"--python-version={_PYTHON}", f"--python-platform={_PLATFORM}"]
        uv = [f"{Path(sys.executable).parent}/uv", "pip", "install", "--no-deps"]
        with progress.step("Python packages of the image") as note, build.entry(path) as made:
            options = ["--only-binary=:all:", "--require-hashes", f"--target={made}"]
            run_noting([*uv, *options, *target, "-r", lock], note, env={})
    return path


def _image(
    name: str, contents: Mapping[str, Path], progress: Progress, parent: Path | None = None
) -> Path:
    """Build the image of ``deploy/images/NAME``; ``contents`` is its build context."""
    dockerfile = _DOCKERFILES / name / "Dockerfile"
    digest = _digest({"Dockerfile": dockerfile, **contents}, parent)
    directory = cache_dir() / "images"
    path = directory / f"{name}-{digest}.tar"
    if path.exists():
        return path
    with progress.step(f"Image {name}") as note, _exclusive(directory):
        if not path.exists():
            with _context(dockerfile, contents) as context, build.entry(path) as made:
                _buildah(reference(name), context, made, note)
        _prune(directory, name)
    return path


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One build at a time: all use the same names in buildah's storage."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prune(directory: Path, name: str) -> None:
    """Keep the newest archives of an image: another checkout may be using one of them."""
    archives = sorted(directory.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for old in archives[:-_KEPT_ARCHIVES]:
        old.unlink()


def _buildah(tag: str, context: Path, archive: Path, note: Note) -> None:
    storage = cache_dir() / "buildah"
    with tempfile.TemporaryDirectory() as runroot:
        buildah = ["buildah", f"--root={storage}", f"--runroot={runroot}"]
        options = ["--isolation=chroot", "--pull=never", "--layers", f"--tag={tag}"]
        run_noting([*buildah, "build", *options, context], note, env={})
        run_noting([*buildah, "push", tag, f"docker-archive:{archive}:{tag}"], note, env={})


@contextmanager
def _context(dockerfile: Path, contents: Mapping[str, Path]) -> Iterator[Path]:
    """Lay out a build context; files are linked where that is possible, not copied."""
    directory = cache_dir() / "contexts"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        context = Path(temporary)
        shutil.copy(dockerfile, context / "Dockerfile")
        for name, source in contents.items():
            (context / name).parent.mkdir(exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns(*_IGNORED)
                shutil.copytree(source, context / name, ignore=ignored, copy_function=_link)
            else:
                _link(str(source), str(context / name))
        yield context


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _digest(contents: Mapping[str, Path], parent: Path | None) -> str:
    """Hash of all inputs. A cache entry never changes, so its name stands for its content."""
    digest = hashlib.sha256(parent.name.encode() if parent else b"")
    for name, source in sorted(contents.items()):
        if source.is_relative_to(cache_dir()):
            digest.update(f"{name}={source.relative_to(cache_dir())}\n".encode())
            continue
        for file in _files(source):
            digest.update(f"{name}/{file.relative_to(source)}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:_HASH]


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for file in sorted(source.rglob("*")):
        if file.is_file() and not set(_IGNORED) & set(file.relative_to(source).parts):
            yield file
