"""The plugin ``archive``: what it packs, and that it notices what is wrong; without an engine."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rigger_mp.plugins import archive as archive_module
from rigger_mp.plugins.archive import Archive, ArchiveError, check, pack


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with a bit of everything that can be packed."""
    root = tmp_path / "report"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "b.txt").write_text("b" * 5000)
    (root / "a.bin").write_bytes(bytes(range(256)))
    (root / "sub" / ".hidden").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_text("not utf-8")
    (root / "link").symlink_to("sub")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "b.txt", root / "second-name.txt")
    os.utime(root / "a.bin", (1_000_000_000, 1_000_000_000.25))
    return root


def members_of(directory: Path) -> list[tuple[str, Path]]:
    names = sorted(directory.rglob("*"))
    return [("report", directory), *((f"report/{file.relative_to(directory)}", file) for file in names)]


def test_an_archive_holds_the_directory(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.tar.xz"
    assert pack(directory, path) == 5
    with tarfile.open(path, "r:xz") as tar:
        assert tar.getnames() == [name for name, _ in members_of(directory)]
        tar.extractall(tmp_path / "back", filter="tar")
    back = tmp_path / "back" / "report"
    assert (back / "second-name.txt").read_text() == "b" * 5000
    assert (back / "link").readlink() == Path("sub")
    assert (back / "sub" / "empty").is_dir()
    assert (back / "a.bin").stat().st_mtime == 1_000_000_000.25
    assert [file.name for file in path.parent.iterdir()] == ["report.tar.xz"]


def test_the_same_directory_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    pack(directory, tmp_path / "1.tar.xz")
    pack(directory, tmp_path / "2.tar.xz")
    assert (tmp_path / "1.tar.xz").read_bytes() == (tmp_path / "2.tar.xz").read_bytes()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.from_regex(r"[a-c]{1,3}", fullmatch=True), st.binary(max_size=200), max_size=6))
def test_any_files_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    base = tmp_path_factory.mktemp("any")
    (base / "report").mkdir()
    for name, content in files.items():
        (base / "report" / name).write_bytes(content)
    assert pack(base / "report", base / "a.tar.xz") == len(files)
    with tarfile.open(base / "a.tar.xz") as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    assert read == {f"report/{name}": content for name, content in files.items()}


def test_an_archive_inside_its_directory_never_holds_itself(directory: Path) -> None:
    path = directory / "self.tar.xz"
    assert pack(directory, path) == 5
    assert pack(directory, path) == 5
    with tarfile.open(path) as tar:
        assert not [name for name in tar.getnames() if "self.tar.xz" in name]


def test_what_has_no_content_to_keep_is_left_out(directory: Path, tmp_path: Path) -> None:
    os.mkfifo(directory / "pipe")
    assert pack(directory, tmp_path / "a.tar.xz") == 5
    with tarfile.open(tmp_path / "a.tar.xz") as tar:
        assert "report/pipe" not in tar.getnames()


@pytest.mark.parametrize("name", ["missing", "report/b.txt"])
def test_a_missing_directory_is_named(directory: Path, name: str) -> None:
    missing = directory.parent / name
    with pytest.raises(ArchiveError, match=f"{name}'.*no such directory"):
        Archive("a", {}).archive_session(missing)
    assert not (missing.parent / f"{missing.name}.tar.xz").exists()


def _change(directory: Path) -> None:
    (directory / "b.txt").write_text("c" * 5000)


def _remove_a_file(directory: Path) -> None:
    (directory / "a.bin").unlink()
    (directory / "a.bin").mkdir()


def _redirect_the_link(directory: Path) -> None:
    (directory / "link").unlink()
    (directory / "link").symlink_to("elsewhere")


def _replace_a_directory(directory: Path) -> None:
    (directory / "sub" / "empty").rmdir()
    (directory / "sub" / "empty").touch()


@pytest.mark.parametrize("change", [_change, _remove_a_file, _redirect_the_link, _replace_a_directory])
def test_a_member_that_differs_is_noticed(directory: Path, tmp_path: Path, change: object) -> None:
    path = tmp_path / "a.tar.xz"
    pack(directory, path)
    members = members_of(directory)
    check(members, path)
    change(directory)  # type: ignore[operator]
    with pytest.raises(ArchiveError, match=r"member 'report/.*' differs from"):
        check(members, path)


def test_a_member_missing_or_added_is_noticed(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    pack(directory, path)
    members = members_of(directory)
    with pytest.raises(ArchiveError, match=r"missing: \['report/new'\]"):
        check([*members, ("report/new", directory / "b.txt")], path)
    with pytest.raises(ArchiveError, match=r"member 'report/.*' is not in the directory"):
        check(members[:-1], path)


@pytest.mark.parametrize("keep", [0, 10, 100, -100, -13, -1])
def test_an_archive_cut_short_is_noticed(directory: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.tar.xz"
    pack(directory, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArchiveError):
        check(members_of(directory), path)


def test_a_flipped_bit_anywhere_in_the_content_is_noticed(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.xz"
    pack(directory, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArchiveError):
            check(members_of(directory), path)


def test_a_failed_check_keeps_the_earlier_archive_and_leaves_nothing_beside_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "a.tar.xz"
    pack(directory, path)
    before = path.read_bytes()
    packed = archive_module._write

    def write_then_change(members: list[tuple[str, Path]], archive: Path) -> None:
        packed(members, archive)
        (directory / "b.txt").write_text("changed while it was packed")

    monkeypatch.setattr(archive_module, "_write", write_then_change)
    with pytest.raises(ArchiveError, match=r"b\.txt"):
        pack(directory, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.tar.xz"]


def test_the_instance_says_what_it_wrote_and_where(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "named.tar.xz"
    _, update = Archive("keeper", {"path": str(path)}).archive_session(str(directory))
    assert update == {"archive": {"keeper": {"path": str(path), "files": 5, "bytes": path.stat().st_size}}}
    _, update = Archive("keeper", {}).archive_session(directory)
    assert update["archive"]["keeper"]["path"] == f"{directory}.tar.xz"


def test_the_event_is_configurable() -> None:
    assert list(Archive("a", {}).callbacks) == ["archive_session"]
    assert list(Archive("a", {"event": "finish_run"}).callbacks) == ["finish_run"]
