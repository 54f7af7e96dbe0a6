"""Parameter trees as plain nested dicts: paths, counts and copies."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Tree = Mapping[str, Any]


def flatten(tree: Tree) -> dict[str, Any]:
    """{'block/conv/kernel': leaf} of a nested dict, in sorted order of the paths."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_text(path): leaf for path, leaf in leaves}


def map_with_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """The tree of function(path, leaf), with paths as `flatten` writes them; for any tree."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_text(path), leaf), tree)


def _text(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose `flatten` is `flat`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *groups, name = path.split("/")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = leaf
    return tree


def count(tree: Any) -> int:
    """Number of scalars in all leaves (arrays or their shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def copy(tree: Any) -> Any:
    """A tree of new buffers with the same values, so that one may be donated without the other."""
    return jax.tree.map(jnp.copy, tree)
