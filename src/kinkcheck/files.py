"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any

from kinkcheck.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where a second writer is then not noticed
    fcntl = None  # type: ignore[assignment]


def require_writable(path: Path, argument: str) -> None:
    """Check that a file can be written later, before the work that it will hold is done.

    Raises:
        InputError: its folder does not exist or cannot be written to, or it is itself a folder.

    >>> require_writable(Path("no-such-folder/audit.json"), "--json")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --json: the folder no-such-folder does not exist
    """
    if path.is_dir():
        raise InputError(f"{argument}: {path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{argument}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{argument}: the folder {path.parent} is not writable")


def require_readable(path: Path) -> None:
    """Check that a file can be read later.

    Raises:
        InputError: it is not there, is a folder, or may not be read.

    >>> require_readable(Path("no-such-file.json"))
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: no-such-file.json cannot be read: No such file or directory
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def write_whole(path: Path, content: str) -> None:
    """Write a text file under a temporary name and move it into place.

    >>> folder = getfixture("tmp_path")
    >>> write_whole(folder / "audit.json", "{}")
    >>> [file.name for file in folder.iterdir()]
    ['audit.json']
    """
    write_whole_bytes(path, content.encode())


def write_whole_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it into place.

    >>> folder = getfixture("tmp_path")
    >>> write_whole_bytes(folder / "figure.png", b"...")
    >>> [file.name for file in folder.iterdir()]
    ['figure.png']
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or a device: nothing to replace
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner can read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
    except OSError:
        return False
    return True
