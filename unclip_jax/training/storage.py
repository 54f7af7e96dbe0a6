"""A workdir that is full, read-only or gone: one clear line instead of a traceback."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from unclip_jax.errors import StorageError, UserError

_REASONS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission is denied",
    errno.EIO: "the disk reports an error",
    errno.ENOENT: "it has vanished",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.ESTALE: "the network file system has lost it",
}
_ANYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a write, whether or not a path is named


@contextlib.contextmanager
def storage_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns what the file system says about the workdir into a `StorageError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = reason_of(error, workdir)
        if reason is None:
            raise
        raise StorageError(
            f"{workdir} can't be written: {reason}. The checkpoints that are there are whole; "
            "mend it and start the same command again"
        ) from None


def reason_of(error: BaseException | None, workdir: pathlib.Path) -> str | None:
    """Why the workdir can't be written if that is what an error (or its cause) says, else None."""
    where = str(workdir.absolute())
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REASONS:
            named = str(error.filename or "")
            ours = named.startswith((where, str(workdir)))
            if error.errno in _ANYWHERE or (named and ours):
                return _REASONS[error.errno]
        text = str(error)
        for number, reason in _REASONS.items():  # libraries in C++ only tell in words
            if _says(text, number) and (number in _ANYWHERE or where in text):
                return reason
        error = error.__cause__ or error.__context__
    return None


def _says(text: str, number: int) -> bool:
    return f"{errno.errorcode[number]}:" in text or os.strerror(number) in text
