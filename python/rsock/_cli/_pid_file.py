"""The file with the number of the process: `--pid-file`.

It is locked while the process runs, so that the file of a killed process is told from one in use.
It must never remove the file of another process.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from ._errors import Failure, message

__all__ = ["pid_file"]


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Have the file for a block. Raises Failure if another process has it, or it cannot be made."""
    if path is None:
        yield
        return
    try:
        number = _locked(path)
        os.ftruncate(number, 0)
        os.write(number, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise Failure(f"--pid-file {path}: {message(error)}") from None
    try:
        yield
    finally:
        # After --user, its directory may be that of another user: an empty file stays then.
        with contextlib.suppress(OSError):
            os.ftruncate(number, 0)
            if _is_at(number, path):
                os.unlink(path)
        os.close(number)


def _locked(path: str) -> int:
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 32).decode(errors="replace").strip()
            os.close(number)
            raise Failure(f"--pid-file {path}: process {holder or '?'} is running") from None
        except OSError:
            os.close(number)
            raise
        if _is_at(number, path):
            return number
        # Its holder has removed it meanwhile.
        os.close(number)


def _is_at(number: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except OSError:
        return False
