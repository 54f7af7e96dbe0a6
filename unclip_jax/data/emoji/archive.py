"""Reading chosen members of an npm tarball into memory.

Nothing is ever unpacked to disk: names, links, modes and owners inside the archive have no effect.
Sizes are capped, so an archive that inflates without end is refused rather than read.
"""

import tarfile
from collections.abc import Callable
from pathlib import Path

from unclip_jax.errors import UserError

MAX_MEMBER_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20


def read_members(
    tarball: Path,
    wanted: Callable[[str], bool],
    max_member_bytes: int = MAX_MEMBER_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
) -> dict[str, bytes]:
    """Contents of the regular files whose name is wanted, by name.

    Args:
      tarball: a .tgz as npm publishes it: every member below one top folder.
      wanted: given a member's path without that top folder, says whether to read it.

    Raises:
      UserError: the file is no readable .tgz, or inflates beyond a cap.
    """
    members: dict[str, bytes] = {}
    inflated = 0
    try:
        with tarfile.open(tarball, "r|gz") as archive:
            for info in archive:
                inflated += info.size
                if inflated > max_total_bytes:
                    raise UserError(f"{tarball}: inflates to more than {max_total_bytes:,} bytes")
                path = info.name.partition("/")[2]
                if not info.isreg() or not wanted(path):
                    continue
                if info.size > max_member_bytes:
                    raise UserError(f"{tarball}: {path} has more than {max_member_bytes:,} bytes")
                stream = archive.extractfile(info)
                assert stream is not None  # regular files always have one
                members[path] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{tarball}: not a readable npm tarball ({error})") from error
    return members
