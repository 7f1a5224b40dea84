"""Bringing in third-party files: only what the manifest names, and only with its bytes."""

import hashlib
import json
from pathlib import Path

import pytest

from frontend import vendor


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A front end with one package that ``npm ci`` would bring."""
    package = tmp_path / "node_modules" / "thing" / "dist"
    monkeypatch.setattr(vendor, "FRONTEND", tmp_path)
    monkeypatch.setattr(vendor, "VENDOR", tmp_path / "static" / "vendor")
    monkeypatch.setattr(vendor, "MANIFEST", tmp_path / "vendor.json")
    right = hashlib.sha256(b"let x;\n").hexdigest()
    (tmp_path / "vendor.json").write_text(
        json.dumps([{"from": "thing/dist/thing.js", "to": "thing.js", "sha256": right}])
    )

    def install(*, served_only: bool, report: bool) -> None:
        package.mkdir(parents=True, exist_ok=True)
        (package / "thing.js").write_bytes(b"let x;\n//# sourceMappingURL=thing.js.map\n")

    monkeypatch.setattr(vendor, "_install", install)
    return tmp_path


def test_it_copies_without_the_source_map_and_is_then_done(shelf: Path) -> None:
    assert vendor.bring() is True
    assert (shelf / "static" / "vendor" / "thing.js").read_bytes() == b"let x;\n"
    assert vendor.bring() is False


def test_it_mends_a_file_that_was_changed(shelf: Path) -> None:
    vendor.bring()
    (shelf / "static" / "vendor" / "thing.js").write_text("steal();")
    assert vendor.bring() is True
    assert (shelf / "static" / "vendor" / "thing.js").read_bytes() == b"let x;\n"


def test_it_refuses_and_removes_a_file_that_the_manifest_does_not_know(shelf: Path) -> None:
    manifest = json.loads((shelf / "vendor.json").read_text())
    manifest[0]["sha256"] = "0" * 64
    (shelf / "vendor.json").write_text(json.dumps(manifest))
    with pytest.raises(vendor.VendorError, match="refused"):
        vendor.bring()
    assert not (shelf / "static" / "vendor" / "thing.js").exists()


@pytest.mark.parametrize(
    "comment", [b"//# sourceMappingURL=a.js.map", b"/*# sourceMappingURL=a.css.map */", b"\n//# sourceMappingURL=a\n"]
)
def test_source_map_comments_are_cut_off(comment: bytes) -> None:
    assert vendor.strip_source_map(b"a{}" + comment) == b"a{}\n"


def test_the_lockfile_names_no_host_and_pins_exactly() -> None:
    lock = json.loads((vendor.FRONTEND / "package-lock.json").read_text())
    wanted = json.loads((vendor.FRONTEND / "package.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all(package.get("integrity") for name, package in lock["packages"].items() if name)
    for versions in (wanted["dependencies"], wanted["devDependencies"]):
        assert all(version[0].isdigit() for version in versions.values())
