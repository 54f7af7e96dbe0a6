"""Who may import whom: the rooms of the house, enforced. docs/architecture.md explains them."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Modules of ours that any room may use: standard library only, and rich for progress.
SHARED = {"errors", "progress"}

MAY_IMPORT = {
    "config": set(),
    "core": set(),
    "text": set(),
    "pictures": set(),
    "parallel": {"core", "config"},
    "diffusion": {"core"},
    "models": {"core", "diffusion"},
    "data": {"config", "text", "pictures"},
    "stages": {"models", "diffusion", "parallel", "core", "config"},
    "training": {"stages", "parallel", "core", "data", "config", "pictures", "text"},
    "generation": {"stages", "models", "diffusion", "parallel", "core", "config", "text"},
    "interop": {"models", "stages", "generation", "core", "config", "text"},
    "evaluation": {"generation", "data", "models", "core"},
    "preflight": {"training", "stages", "parallel", "core", "config"},
    "launch": {"config"},
    "sweeps": {"config", "launch", "pictures"},
    "configs": {"config"},
}

# Libraries that only the named rooms may touch.
RESERVED = {
    "flax": {"models"},
    "optax": {"training"},
    "orbax": {"training"},
    "grain": {"data"},
    "jax": {
        *("core", "parallel", "diffusion", "models", "stages", "training", "generation"),
        *("interop", "evaluation", "preflight"),
    },
    "torch": {"interop"},
}

FILES_WITH_JAX = {"data": {"device.py"}}


def folder_of(room):
    top = ROOT / room
    return top if room in ("launch", "configs") else ROOT / "unclip_jax" / room


def imports(path):
    """Dotted names of all modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "unclip_jax":
                yield from (f"unclip_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module


def violations(room):
    for path in sorted(folder_of(room).rglob("*.py")):
        for name in imports(path):
            top, *rest = name.split(".")
            where = f"{path.relative_to(ROOT)} imports {name}"
            if top == "unclip_jax" and rest:
                allowed = MAY_IMPORT[room] | SHARED | {room, "__version__"}
                if rest[0] not in allowed:
                    yield where
            elif top in RESERVED and room not in RESERVED[top]:
                if top == "jax" and path.name in FILES_WITH_JAX.get(room, ()):
                    continue
                yield where


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_they_may(room):
    assert list(violations(room)) == []


def test_every_room_is_listed():
    folders = {p.name for p in (ROOT / "unclip_jax").iterdir() if (p / "__init__.py").exists()}
    assert folders - {"cli"} <= set(MAY_IMPORT)


def test_nothing_imports_cli():
    for room in MAY_IMPORT:
        for path in folder_of(room).rglob("*.py"):
            assert not any(n.startswith("unclip_jax.cli") for n in imports(path)), path


def test_no_private_modules_of_libraries():
    """jax._src and its like change without notice; two versions of JAX are supported."""
    for path in [*(ROOT / "unclip_jax").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for name in imports(path):
            private = [p for p in name.split(".") if p[:1] == "_" and p[:2] != "__"]
            assert not private, (path, name)
