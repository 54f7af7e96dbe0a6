"""Writing a folder whole or not at all, over one of the same kind and over nothing else."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from unclip_jax.errors import UserError


@contextlib.contextmanager
def whole_folder(path: pathlib.Path, marker: str, kind: str) -> Iterator[pathlib.Path]:
    """A fresh folder to fill, which takes the place of `path` if nothing is raised.

    Args:
      marker: the file by which a folder of this kind is known; one that has it is replaced.
      kind: what the folder is, for errors, such as "bundle".

    Raises:
      UserError: a path that is taken by something else or can't be written.
    """
    path = path.absolute()
    _check_free(path, marker, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
            fresh = pathlib.Path(scratch) / "new"
            fresh.mkdir()
            yield fresh
            if path.exists():
                path.rename(pathlib.Path(scratch) / "old")
            fresh.rename(path)
    except OSError as error:
        raise UserError(f"can't write the {kind} {path}: {error.strerror}") from error


def _check_free(path: pathlib.Path, marker: str, kind: str) -> None:
    if not path.exists():
        return
    if not path.is_dir() or (any(path.iterdir()) and not (path / marker).is_file()):
        raise UserError(f"{path} exists and is no {kind}: it is left alone, give another folder")
