"""Files that appear whole or not at all, written by one process at a time."""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kinkcheck.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where a second writer is then not noticed
    fcntl = None  # type: ignore[assignment]


def require_writable(path: Path, argument: str) -> None:
    """Check that a file can be written later, before the work that it will hold is done.

    Raises:
        InputError: its folder does not exist or cannot be written to, or it is itself a folder; or
            a pipe with a name, which nobody may ever read.

    >>> require_writable(Path("no-such-folder/audit.json"), "--json")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --json: the folder no-such-folder does not exist
    """
    try:
        is_folder = path.is_dir()
    except OSError as error:  # the name is too long, say
        raise InputError(f"{argument}: {path} cannot be written: {error.strerror}") from None
    if is_folder:
        raise InputError(f"{argument}: {path} is a folder, not a file")
    # Not /dev/stdout where that is a pipe, which has no name and a reader.
    if Path(os.path.realpath(path)).is_fifo():
        raise InputError(f"{argument}: {path} cannot be written: it is a pipe, not a file")
    if not path.parent.is_dir():
        raise InputError(f"{argument}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{argument}: the folder {path.parent} is not writable")


def require_other(path: Path, argument: str, source: Path) -> None:
    """Check that what will be written does not take the place of what is read.

    Args:
        path: of the file that will be written.
        argument: that names it.
        source: the file that is read; of a folder, whatever is in it.

    Raises:
        InputError: it does.

    >>> folder = getfixture("tmp_path")
    >>> require_other(folder / "epochs.csv", "--out", folder)
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --out: ...epochs.csv is in the folder that is read; name another
    """
    real, read = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    if read.is_dir() and read in real.parents:
        raise InputError(f"{argument}: {path} is in the folder that is read; name another")
    with suppress(OSError):  # one of them is not there
        if os.path.samefile(path, source):
            raise InputError(f"{argument}: {path} is the file that is read; name another")


def require_readable(path: Path) -> None:
    """Check that a file can be read later.

    Raises:
        InputError: it is not there, is a folder, or may not be read; or it is a pipe or a device,
            which may have no end.

    >>> require_readable(Path("no-such-file.json"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: no-such-file.json cannot be read: No such file or directory
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise InputError(f"{path} cannot be read: it is a pipe or a device, not a file")
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


class Claim:
    """The right to write a file, held while the block runs.

    A hidden file beside it says whose the right is. It is locked by the operating system
    (``flock``), so the right ends with its process, however that ends, and whoever writes next
    takes over what a killed process left there. A pipe or a device is nobody's; a symbolic link
    stands for the file that it names.

    Args:
        path: of the file.

    Attributes:
        path: of the file.

    Raises:
        InputError: another process has it; the message names that process.
        OSError: the folder cannot be written to.

    >>> path = getfixture("tmp_path") / "audit.json"
    >>> with Claim(path) as claim:
    ...     claim.write(b"{}")
    ...     Claim(path).__enter__()
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: ...audit.json is being written by process ...
    >>> [file.name for file in path.parent.iterdir()]
    ['audit.json']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = _behind_link(path)
        self._lock = self._real.with_name(f".{self._real.name}{_CLAIMED}")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_file():
            return self
        self._file = self._taken()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._lock.unlink(missing_ok=True)  # before the lock is given back: it is still ours
            self._file.close()

    def write(self, content: bytes) -> None:
        """Replace the file: it holds either what it held, or all of this, and this is on disk."""
        if self._file is None:
            self.path.write_bytes(content)  # a pipe or a device: nothing to replace
            return
        unfinished = self._real.with_name(f".{self._real.name}{_UNFINISHED}")
        try:
            how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
            handle = os.open(unfinished, how, 0o666)
            try:
                append(handle, content)
            finally:
                os.close(handle)
            os.replace(unfinished, self._real)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _keep_names(self._real.parent)

    def _taken(self) -> IO[bytes]:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE)
            file = open(self._lock, "a+b", buffering=0)  # noqa: SIM115 held
            # Its owner may have given it back and removed it in between.
            if take(file) and _is_at(file, self._lock):
                say_whose(file, f"process {os.getpid()} on {socket.gethostname()}")
                return file
            file.seek(0)
            owner = file.read(200).decode(errors="replace")
            file.close()
        raise InputError(
            f"{self.path} is being written by {owner or 'another process'}; wait for it, or stop "
            "it and try again"
        )


def say_whose(file: IO[bytes], said: str) -> None:
    """Write into the file of a lock whose it is: a courtesy, for which a disk may have no room.

    Args:
        file: opened without a buffer, or what could not be written would be tried again, and fail,
            when it is closed.
        said: what to write.

    >>> with open(getfixture("tmp_path") / "lock", "a+b", buffering=0) as file:
    ...     say_whose(file, "process 1")
    ...     _ = file.seek(0); file.read()
    b'process 1'
    """
    with suppress(OSError):
        file.truncate(0)
        file.write(said.encode())


_CLAIMED, _UNFINISHED = ".kinkcheck-lock", ".kinkcheck-new"
"""How the names of the hidden files beside a file that is being written end."""

_TRIES, _PAUSE = 5, 0.1  # a file takes a moment to write


def write_whole(path: Path, content: str) -> None:
    """Write a text file under a temporary name and move it into place.

    Raises:
        InputError: another process writes it.
        OSError: it cannot be written.

    >>> folder = getfixture("tmp_path")
    >>> write_whole(folder / "audit.json", "{}")
    >>> [file.name for file in folder.iterdir()]
    ['audit.json']
    """
    write_whole_bytes(path, encoded(content))


def encoded(text: str) -> bytes:
    r"""A text as it lies in a file; what UTF-8 does not have is spelled out.

    The name of a file may be no text, and the name of a layer any.

    >>> encoded("caf\udce9")
    b'caf\\udce9'
    """
    return text.encode(errors="backslashreplace")


def write_whole_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it into place; see :func:`write_whole`.

    >>> folder = getfixture("tmp_path")
    >>> write_whole_bytes(folder / "figure.png", b"...")
    >>> [file.name for file in folder.iterdir()]
    ['figure.png']
    """
    with Claim(path) as claim:
        claim.write(content)


def append(handle: int, content: bytes) -> None:
    """Write to an open file; on return it is on disk.

    Args:
        handle: of the file.
        content: what comes next in it.

    >>> path = getfixture("tmp_path") / "file"
    >>> with open(path, "wb") as file:
    ...     append(file.fileno(), b"a line")
    >>> path.read_bytes()
    b'a line'
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that what it held can be computed again and nothing is deleted.

    Returns:
        Its new path: with ``.damaged`` at the end, and a number if there is one of that name.

    >>> path = getfixture("tmp_path") / "points.jsonl"
    >>> for _ in range(2):
    ...     _ = path.write_text("..."); set_aside(path).name
    'points.jsonl.damaged'
    'points.jsonl.damaged-2'
    """
    aside = aside_of(path)
    os.rename(_behind_link(path), aside)
    return aside


def aside_of(path: Path) -> Path:
    """The path under which :func:`set_aside` would put a file.

    >>> aside_of(Path("no-such-folder/study.db")).name
    'study.db.damaged'
    """
    path = _behind_link(path)
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return aside


def _behind_link(path: Path) -> Path:
    """The file that a symbolic link names; any other path, and a link to a device, as it is."""
    real = Path(os.path.realpath(path))
    named = path.is_symlink() and (real.is_file() or not real.exists())
    return real if named else path


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _keep_names(folder: Path) -> None:
    """Put the names in a folder on disk, or one could be lost where what was told of it is not."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take(file: IO[Any], *, shared: bool = False) -> bool:
    """Take the lock of an open file, which ends with the process, however that ends.

    Args:
        file: the file; other processes may read and write it all the same.
        shared: beside others that share it.

    Returns:
        Whether it could be taken: nobody else has it.

    >>> path = getfixture("tmp_path") / "file"
    >>> with open(path, "a") as one, open(path, "a") as other:
    ...     take(one), take(other)
    (True, False)
    """
    if fcntl is None:
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where a second writer is then not noticed
        pass
    return True
