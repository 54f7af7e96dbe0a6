"""Small shards written into tmp_path: plain USTAR tars of JPEG, caption and json."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image


def encode(pixels: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int, height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth picture that differs from number to number."""
    y, x = np.mgrid[:height, :width]
    waves = [x * (3 + number % 5) + number * 7, y * 5 + number * 13, (x + y) * 2 + number * 29]
    return np.stack([(w % 256) for w in waves], -1).astype(np.uint8)


def write_tar(path, members: list[tuple[str, bytes]], **options) -> str:
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def sample_members(number: int, key: str) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.jpg", encode(picture(number), quality=90)),
        (f"{key}.txt", f"picture number {number}".encode()),
        (f"{key}.json", json.dumps({"number": number}).encode()),
    ]


@pytest.fixture
def tools():
    """The functions above, as attributes: test files cannot import each other."""

    class Tools:
        encode = staticmethod(encode)
        picture = staticmethod(picture)
        write_tar = staticmethod(write_tar)
        sample_members = staticmethod(sample_members)

    return Tools


@pytest.fixture
def make_shards():
    """Writes shards of the given sizes; `change` may alter the members of a sample by number."""

    def make(folder, counts=(20, 20), change=None):
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for shard, count in enumerate(counts):
            members = []
            for i in range(count):
                own = sample_members(number, f"{shard:05d}{i:04d}")
                members += change(number, own) if change else own
                number += 1
            write_tar(folder / f"{shard:05d}.tar", members)
        return str(folder)

    return make
