"""Style rules as tests: purity, sizes, settings documented, SQL that prepares."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import asyncpg
import pytest

import ledger
from ledger import registry
from ledger.books import store as books
from ledger.books import table_sql
from ledger.config.settings import Settings
from ledger.rebuild import plan as bulk
from tests.conftest import Database

ROOT = Path(__file__).parents[1]
LEDGER = sorted((ROOT / "ledger").rglob("*.py"))
CODE = [*LEDGER, *ROOT.glob("handlers/*.py"), *ROOT.glob("projections/*.py")]
FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 500
NOT_PREPARED = {
    "ledger.database.migrations", "ledger.export.offline_fold",
    "ledger.__main__",
}  # fmt: skip
"""Migrations create what they read, the offline fold is SQLite, `__main__` runs a command."""
PURE_STDLIB = {
    "__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "functools",
    "hashlib", "itertools", "operator", "re", "typing",
}  # fmt: skip


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


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function):
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.name} has {lines} lines"
        for path in CODE
        for node in functions(path)
        if (lines := code_lines(node)) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_modules_stay_small() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {n} lines"
        for path in CODE
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
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


def test_every_public_function_says_what_it_does() -> None:
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


async def test_every_sql_constant_prepares(database: Database) -> None:
    async with database.service() as connection:
        generation = await books.create_generation(connection, registry.load(), "tidy", "live")
        await books.use_generation(connection, generation)
        for statement in bulk.SCRATCH:
            await connection.execute(statement)
        constants = {
            f"{module_name(path)}.{name}": value
            for path in LEDGER
            if module_name(path) not in NOT_PREPARED
            for name, value in vars(importlib.import_module(module_name(path))).items()
            if name.isupper() and isinstance(value, str)
            and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value)
        }  # fmt: skip
        assert len(constants) > 20
        for name, value in constants.items():
            try:
                await connection.prepare(value)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")
        known = table_sql.tables(registry.load())
        streams = [name for name, table in known.items() if "state" in table.columns]
        put = [name for name in streams if not known[name].table.hashed]
        put += [name for name, table in known.items() if table.table.mode == "sum"]
        assert len(streams) > 5
        assert len(put) > 5
        statements = [known[name].update for name in streams]
        for names in (streams, *([name] for name in streams)):
            statements.append(table_sql.look_up(registry.load(), tuple(names)))
        for names in (put, *([name] for name in put)):
            statements.append(table_sql.put_together(registry.load(), tuple(names)))
        for statement in statements:
            await connection.prepare(statement)


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
