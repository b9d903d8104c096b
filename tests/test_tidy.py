"""Style rules as tests: layers, purity, sizes, settings documented, no dead code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

import ledger
from ledger.config.settings import Settings

ROOT = Path(__file__).parents[1]
LEDGER = sorted((ROOT / "ledger").rglob("*.py"))
CODE = [*LEDGER, *ROOT.glob("handlers/*.py"), *ROOT.glob("projections/*.py")]
FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 500
"""Lines without docstrings."""
README_LINES_MAX = 40
MODULES_MAX = 15
PACKAGES = sorted(path.parent for path in ROOT.glob("ledger/*/__init__.py"))
PRIVATE_WORDS = {
    "Appended", "Arrival", "Bell", "Breath", "Cover", "Crew", "Door", "Intake", "Judge", "Lane",
    "PaperFold", "Pipe", "Question", "Ring", "Seen", "Shelf", "Shuffle", "SomeoneElseFolds",
    "SourceFolder", "Tally", "Told", "Trouble",
}  # fmt: skip
"""Words of an earlier, private vocabulary; ledger/GLOSSARY.md has those of the field."""
PURE_STDLIB = {
    "__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "functools",
    "hashlib", "itertools", "operator", "re", "typing",
}  # fmt: skip


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """Return the dotted name of a module, of a package for its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(node: ast.AST) -> int:
    """Count the lines of a function or an expression."""
    return int(node.end_lineno) - int(node.lineno) + 1  # type: ignore[attr-defined]


def docstring_lines(node: ast.AST) -> int:
    """Count the lines of the docstrings in a module or a function."""
    return sum(
        lines(each)
        for each in ast.walk(node)
        if isinstance(each, ast.Expr)
        and isinstance(each.value, ast.Constant)
        and isinstance(each.value.value, str)
    )


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return lines(function) - docstring_lines(function)


def module_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) - docstring_lines(tree(path))


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.name} has {n} lines"
        for path in CODE
        for node in functions(path)
        if (n := function_lines(node)) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_modules_stay_small() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {n} lines"
        for path in CODE
        if (n := module_lines(path)) > MODULE_LINES_MAX
    ]
    assert long == []


@pytest.mark.parametrize("folder", ["handlers", "projections"])
def test_meaning_and_sums_are_pure(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            allowed = top in PURE_STDLIB or name.startswith("ledger.model") or top == folder
            assert allowed or name == "ledger", f"{path.name} imports {name}"


def test_nothing_but_the_registry_imports_handlers_or_projections() -> None:
    users = {
        module_name(path)
        for path in LEDGER
        if {"handlers", "projections"} & {name.split(".")[0] for name in imports(path)}
    }
    assert users == {"ledger.registry", "ledger.simulator.simulate"}


def test_every_public_function_states_what_it_does() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in CODE
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


def test_every_setting_is_in_the_guide() -> None:
    guide = (ROOT / "ledger/config/GUIDE.md").read_text(encoding="utf-8")
    missing = [
        f.name for f in fields(Settings)
        if f.name != "sources" and f"LEDGER_{f.name.upper()}" not in guide
    ]  # fmt: skip
    assert missing == []


def test_every_module_imports_alone() -> None:
    found = pkgutil.walk_packages(ledger.__path__, "ledger.")
    names = {info.name for info in found} - {"ledger.__main__"}
    assert len(names) == len(LEDGER) - 2  # without ledger/__init__.py and ledger/__main__.py
    loaded = {importlib.import_module(name).__name__ for name in names}
    assert loaded == names


def test_no_todo_is_left() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in CODE
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_nothing_is_unused() -> None:
    """What only tests use is unused, too; `[tool.vulture]` names what is found wrongly."""
    done = subprocess.run(
        [sys.executable, "-m", "vulture"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    fields_on_the_wire = "ledger/queries/schemas/"
    found = [
        line
        for line in done.stdout.splitlines()
        if not (line.startswith(fields_on_the_wire) and "unused variable" in line)
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_introduces_itself(package: Path) -> None:
    readme = (package / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= README_LINES_MAX
    sentence = ast.get_docstring(tree(package / "__init__.py")) or ""
    assert sentence.endswith(".")
    assert len(sentence.splitlines()) == 1
    modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MODULES_MAX


@pytest.mark.parametrize("folder", ["handlers", "projections"])
def test_the_readmes_of_handlers_and_projections_stay_short(folder: str) -> None:
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= README_LINES_MAX


def test_the_readme_of_the_projections_names_each_of_them() -> None:
    readme = (ROOT / "projections/README.md").read_text(encoding="utf-8")
    modules = {path.stem for path in ROOT.glob("projections/*.py")} - {"__init__"}
    assert [name for name in sorted(modules) if f"`{name}`" not in readme] == []


def test_the_posting_rules_explain_each_flag_once() -> None:
    rules = (ROOT / "projections/POSTINGS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", rules.partition("| flag |")[2], re.MULTILINE)
    named = [flag for row in rows for flag in re.findall("`([a-z_]+)`", row)]
    assert sorted(named) == sorted(set(named))


def test_the_architecture_page_shows_the_layers_that_are_kept() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    page = (ROOT / "ledger/README.md").read_text(encoding="utf-8")
    assert "\n".join(["```", *layers, "```"]) in page


def test_classes_have_names_of_the_field() -> None:
    private = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in CODE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and node.name.lstrip("_") in PRIVATE_WORDS
    ]
    assert private == []


def test_layers_are_kept() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tools_find_nothing(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
