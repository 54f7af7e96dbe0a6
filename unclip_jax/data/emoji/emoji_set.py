"""What a build is asked for and what it made, as plain values that go to JSON and back."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unclip_jax.data.emoji.packages import required_packages
from unclip_jax.errors import UserError

SIZES = (64, 128, 256)
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the content of a set, but for the version of the renderer."""

    size: int
    styles: tuple[str, ...]
    tones: bool
    limit: int | None

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise UserError(f"emoji pictures have size 64, 128 or 256, not {self.size}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit is a number of concepts, at least 1, not {self.limit}")

    def to_json(self) -> dict[str, Any]:
        packages = {package.spec: package.integrity for package in required_packages(self.styles)}
        fields = asdict(self) | {"styles": list(self.styles)}
        return {"format_version": FORMAT_VERSION, **fields, "packages": packages}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Recipe":
        return Recipe(value["size"], tuple(value["styles"]), value["tones"], value["limit"])


@dataclass(frozen=True)
class Shard:
    """One tar: its name, split, number of pictures, length in bytes and SHA-256."""

    name: str
    split: str
    pictures: int
    bytes: int
    sha256: str

    @staticmethod
    def of(path: Path, split: str, pictures: int) -> "Shard":
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Shard(path.name, split, pictures, path.stat().st_size, digest)


@dataclass(frozen=True)
class EmojiSet:
    """A finished set.

    Args:
      directory: the folder it is in.
      recipe: what it was made of.
      renderer: what drew it, with version.
      shards: its tars.
      styles: number of pictures of each style.
      concepts: number of different emoji, skin tones not counted apart.
      captions: number of different captions.
      vocabulary: number of different words in the captions.
      duplicates: pictures left out because they were byte-identical to another one, or held out
        beside no training picture after that.
      unnamed: icons left out because they have no Unicode code.
    """

    directory: Path
    recipe: Recipe
    renderer: str
    shards: tuple[Shard, ...]
    styles: dict[str, int]
    concepts: int
    captions: int
    vocabulary: int
    duplicates: int
    unnamed: int

    @property
    def splits(self) -> dict[str, int]:
        """Number of pictures in each split that has any."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.pictures
        return counts

    def paths(self, split: str) -> list[str]:
        """The shards of one split, for a data loader."""
        return [str(self.directory / shard.name) for shard in self.shards if shard.split == split]

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self) | {
            "recipe": self.recipe.to_json(),
            "shards": [asdict(shard) for shard in self.shards],
        }
        del fields["directory"]
        return {"splits": self.splits, **fields}

    @staticmethod
    def from_json(directory: Path, value: dict[str, Any]) -> "EmojiSet":
        fields = {key: entry for key, entry in value.items() if key != "splits"}
        fields["recipe"] = Recipe.from_json(fields["recipe"])
        fields["shards"] = tuple(Shard(**shard) for shard in fields["shards"])
        return EmojiSet(directory=directory, **fields)
