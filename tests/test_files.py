"""Files that appear whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest

from kinkcheck import files
from kinkcheck.errors import InputError
from kinkcheck.files import Claim, require_writable, set_aside, write_whole


def test_content_is_written_as_utf8(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "β ≠ 0\n")
    assert (tmp_path / "a.json").read_bytes() == "β ≠ 0\n".encode()


def test_existing_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("a longer content than the new one")
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(
    step: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    file = tmp_path / "a.json"
    file.write_text("old")
    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(error):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_right_counts_where_there_is_no_room_to_say_whose_it_is(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow
    try:
        with Claim(tmp_path / "a.json"), pytest.raises(InputError, match="by another process"):
            Claim(tmp_path / "a.json").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_reader_never_sees_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    seen = []
    replace = os.replace

    def look_then_replace(source: str, target: Path) -> None:
        seen.append((file.read_text(), Path(source).read_text(), Path(source).parent))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", look_then_replace)
    write_whole(file, "new")
    assert seen == [("old", "new", tmp_path)]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a.json", "{}")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~umask


def test_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "{}")
    assert pipe.is_fifo()
    reader.join()
    assert received == ["{}"]


def test_file_in_an_existing_folder_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_writable(tmp_path / "a.json", "--json")
    require_writable(Path("a.json"), "--json")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--json: .* is a folder, not a file$"):
        require_writable(tmp_path, "--json")
    with pytest.raises(InputError, match=r"^--json: the folder .*none does not exist$"):
        require_writable(tmp_path / "none" / "a.json", "--json")
    with pytest.raises(InputError, match=r"^--json: the folder .*file does not exist$"):
        require_writable(tmp_path / "file" / "a.json", "--json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=rf"^--json: .*{name} .*: it is a pipe, not a file$"):
            require_writable(tmp_path / name, "--json")
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"^--json: the folder .* is not writable$"):
        require_writable(tmp_path / "a.json", "--json")


def test_a_link_and_the_file_that_it_names_are_one(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    file, link = tmp_path / "runs" / "1.json", tmp_path / "latest.json"
    file.write_text("old")
    link.symlink_to("runs/1.json")
    write_whole(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    with Claim(link), pytest.raises(InputError, match=r"1\.json is being written by process"):
        Claim(file).__enter__()
    assert set_aside(link) == file.with_name("1.json.damaged")
    write_whole(link, "again")
    assert file.read_text() == "again"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "1.json", "1.json.damaged", "latest.json", "runs",
    ]  # fmt: skip


def test_what_is_no_text_is_spelled_out(tmp_path: Path) -> None:
    """As in the name of a file that is none, b"caf\\xe9"."""
    write_whole(tmp_path / "a.html", f"<h1>{os.fsdecode(bytes([99, 97, 102, 233]))}</h1>")
    assert (tmp_path / "a.html").read_text("utf-8") == r"<h1>caf\udce9</h1>"


def test_what_is_no_file_is_never_renamed_through_a_link(tmp_path: Path) -> None:
    """A device, say: of it the link alone is set aside."""
    pipe, link = tmp_path / "pipe", tmp_path / "part.json"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    assert set_aside(link) == tmp_path / "part.json.damaged"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert not link.is_symlink()
