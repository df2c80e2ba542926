"""Who may import whom. The table below is the one of docs/architecture.md, in code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "fsdeploy": ROOT / "fsdeploy",
    "fsdeploy_plugins": ROOT / "plugins" / "fsdeploy_plugins",
    "fsdeploy_converters": ROOT / "converters" / "fsdeploy_converters",
}
GROUND = {"errors", "files", "images", "progress", "terminal", "config"}
ALLOWED: dict[str, set[str]] = {
    "ground": set(),
    "config": set(),
    "faces": GROUND,
    "nn": GROUND,
    "model": GROUND | {"nn"},
    "training": GROUND | {"model", "faces", "nn"},
    "runtime": GROUND | {"faces"},
    "export": GROUND | {"model", "runtime", "faces"},
    "convert": GROUND | {"runtime", "faces"},
    "demo": GROUND | {"faces", "model", "training", "export", "runtime", "convert"},
    "plugins": GROUND | {"model", "nn", "training", "convert", "faces", "runtime"},
    "converters": GROUND | {"model", "nn"},
}
FREE_OF = {
    "torch": ("fsdeploy.faces", "fsdeploy.runtime", "fsdeploy.convert", "fsdeploy.config", "fsdeploy_plugins.color",
              "fsdeploy_plugins.mask", "fsdeploy_plugins.scaling", "fsdeploy_plugins.writer"),
    "keras": ("fsdeploy", "fsdeploy_plugins", "fsdeploy_converters"),
    "tensorflow": ("fsdeploy", "fsdeploy_plugins", "fsdeploy_converters"),
    "torchvision": ("fsdeploy", "fsdeploy_plugins", "fsdeploy_converters"),
    "fsdeploy_plugins": ("fsdeploy",),
    "fsdeploy_converters": ("fsdeploy", "fsdeploy_plugins"),
}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in SOURCES.items():
        for file in folder.rglob("*.py"):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "fsdeploy":
        return parts[0].removeprefix("fsdeploy_")
    if len(parts) == 1 or parts[1] in {"errors", "files", "images", "progress", "terminal", "__main__"}:
        return "ground"
    return parts[1]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of(module: str, *, at_import_time: bool) -> set[str]:
    """Modules that `module` names in import statements; with `at_import_time` only those outside functions."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: relative imports hide the arrow"
                base = child.module or ""
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    names.add(full if full in MODULES else base)
            if not (at_import_time and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                visit(child)

    visit(ast.parse(MODULES[module].read_text("utf-8")))
    return names


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may_know(module: str) -> None:
    room = room_of(module)
    named = imports_of(module, at_import_time=False)
    for package, free in FREE_OF.items():
        if any(module == name or module.startswith(f"{name}.") for name in free):
            assert not any(name.split(".")[0] == package for name in named), f"{module} must not import {package}"
    if room == "cli" or module == "fsdeploy.__main__":
        return
    for name in named:
        target = room_of(name)
        if name not in MODULES or target in {room, "ground"}:
            continue
        assert target in ALLOWED[room], f"{module} imports {name}: {room} -> {target} is no arrow of the design"


def test_no_module_reaches_itself_by_imports() -> None:
    graph = {
        module: {name for name in imports_of(module, at_import_time=True) if name in MODULES and name != module}
        for module in MODULES
    }
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "circle: " + " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for name in sorted(graph[module]):
            walk(name, (*path, module))
        done.add(module)

    for module in sorted(graph):
        walk(module, ())
