"""Files that are no image archives."""

import io
import tarfile
from pathlib import Path

import pytest

from ringfence.lab.errors import LabError
from ringfence.lab.node import check_archive


def _archive(path: Path, name: str) -> Path:
    with tarfile.open(path, "w") as held:
        held.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["manifest.json", "./index.json"])
def test_an_image_archive_passes(tmp_path: Path, name: str) -> None:
    check_archive(_archive(tmp_path / "image.tar", name))


def test_nonsense_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.tar"
    text.write_text("nonsense")
    for path in (text, _archive(tmp_path / "other.tar", "notes.txt")):
        with pytest.raises(LabError, match="is not an image archive: "):
            check_archive(path)
