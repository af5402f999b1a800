"""An image of Ringfence as of another release."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import ringfence

_FILE = "opt/ringfence/ringfence/__init__.py"


def another_release(archive: Path, made: Path, name: str, release: str) -> None:
    """Write an archive (docker save) of Ringfence's image under a name, with a layer more."""
    text = Path(ringfence.__file__).read_text().replace(ringfence.__version__, release)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, _FILE, text.encode())
    with tarfile.open(archive) as old, tarfile.open(made, "w") as new:
        (manifest,) = _read(old, "manifest.json")
        config = _read(old, manifest["Config"])
        digest = hashlib.sha256(layer.getvalue()).hexdigest()
        config["rootfs"]["diff_ids"].append(f"sha256:{digest}")
        config["history"].append({"created_by": "another release"})
        for member in manifest["Layers"]:
            new.addfile(old.getmember(member), old.extractfile(member))
        _add(new, f"{digest}.tar", layer.getvalue())
        _add(new, "config.json", json.dumps(config).encode())
        layers = [*manifest["Layers"], f"{digest}.tar"]
        whole = [{"Config": "config.json", "RepoTags": [name], "Layers": layers}]
        _add(new, "manifest.json", json.dumps(whole).encode())


def _read(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file, name
    return json.load(file)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    archive.addfile(info, io.BytesIO(content))
