"""The cache: entries appear whole or not at all, and images change name with what is in them."""

from pathlib import Path

import pytest

from ringfence.lab import images
from ringfence.lab.build import entry, required_version


def test_an_entry_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "cache/thing"
    with pytest.raises(ZeroDivisionError), entry(path) as made:  # noqa: PT012
        made.write_text("half")
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []
    with entry(path) as made:
        made.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_entry_replaces_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    for content in ("old", "new"):
        with entry(path) as made:
            made.mkdir()
            (made / content).touch()
    assert [f.name for f in path.iterdir()] == ["new"]


def test_version_is_read_from_go_mod(tmp_path: Path) -> None:
    file = tmp_path / "go.mod"
    file.write_text("module m\n\nrequire k8s.io/kubernetes v1.2.3\nrequire (\n\ta.b/c v0.1.0\n)\n")
    assert required_version(file, "k8s.io/kubernetes") == "v1.2.3"
    assert required_version(file, "a.b/c") == "v0.1.0"


def test_digest_follows_every_input_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_text("1")
    parent, other = tmp_path / "base-1.tar", tmp_path / "base-2.tar"

    def digest(parent: Path = parent) -> str:
        return images._digest({"source": source}, parent)

    first = digest()
    (source / "__pycache__").mkdir()
    (source / "__pycache__/file.pyc").write_text("compiled")
    assert digest() == first
    seen = {first, digest(other)}
    (source / "deep/file").write_text("2")
    seen.add(digest())
    (source / "deep/file").rename(source / "deep/renamed")
    seen.add(digest())
    (source / "deep/more").touch()
    seen.add(digest())
    assert len(seen) == 5
