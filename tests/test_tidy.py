"""Style rules as tests: ranks, purity, sizes, settings documented, SQL that prepares."""

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
from ledger import books, bulk, registry, table_sql
from ledger.settings import Settings
from tests.conftest import Database

ROOT = Path(__file__).parents[1]
CODE = [*ROOT.glob("ledger/**/*.py"), *ROOT.glob("handlers/*.py"), *ROOT.glob("projections/*.py")]
FUNCTION_LINES_MAX = 50
MODULE_LINES_MAX = 500
PURE_STDLIB = {
    "__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "functools",
    "hashlib", "itertools", "operator", "re", "typing",
}  # fmt: skip
RANKS = [
    {"__init__", "errors", "reading", "model"},
    {"addresses", "secrecy",
     "payload", "settings", "signature", "registry", "journal", "stored", "change", "fold",
     "copytext", "metrics", "logs", "loop", "merkle", "leaf", "note", "keys", "sealfile",
     "authentic",
     "niceness", "background", "recon_rules", "recon_items", "recon_judge", "recon_result",
     "recon_cover",
     "recon_report", "matching", "statement", "statement_events", "statement_check",
     "statement_straitsx",
     "statement_csv", "statement_camt", "statement_mt940", "statement_read",
     "pull_terms",
     "lines", "outfile", "holding", "pack", "packlist", "export_files", "export_journal",
     "shuffle"},
    {"database", "migrate", "log", "conditions", "sources", "table_sql", "books", "cells",
     "kept_findings", "deliveries", "gauges", "questions", "asof", "answers",
     "pooler", "clocks", "inventory", "kinds",
     "answers_log", "answers_seals", "reads", "reads_money", "reads_people", "reads_log",
     "reads_status", "reads_exceptions", "reads_seals", "problems", "seals", "compare", "bulk",
     "statement_log", "statement_child", "recon_books", "recon_store", "reads_recon",
     "reads_findings", "answers_recon"},
    {"receive", "intake", "fold_connections", "worker", "projector", "seal",
     "verify_log", "verify_books", "decide",
     "admission", "connections",
     "verify_recon",
     "reads_asof", "reads_asof_money", "reads_asof_people", "openapi", "routes", "query",
     "reconcile", "recon_decide", "recon_pages", "routes_recon",
     "pull", "pulling", "bulk_units", "bulk_worker", "bulk_load", "rebuild"},
    {"postgres_binaries", "postgres_cluster", "postgres_process", "postgres_userns",
     "postgres_writeback", "postgres",
     "provision", "app", "child", "serve"},
]  # fmt: skip


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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


def rank(module: str) -> int:
    for n, names in enumerate(RANKS):
        if module in names:
            return n
    return len(RANKS)


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.name} has {lines} lines"
        for path in CODE
        for node in functions(path)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
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
        path.stem
        for path in ROOT.glob("ledger/*.py")
        if {"handlers", "projections"} & {name.split(".")[0] for name in imports(path)}
    }
    assert users <= {"registry", "send", "simulate", "samples"}


def test_modules_import_lower_ranks_only() -> None:
    wrong = [
        f"{path.stem} (rank {rank(path.stem)}) imports {name}"
        for path in ROOT.glob("ledger/*.py")
        for name in imports(path)
        if name.startswith("ledger.")
        and (ROOT / "ledger" / f"{name.split('.')[1]}.py").exists()
        and rank(name.split(".")[1]) > rank(path.stem)
    ]
    assert wrong == []


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


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        f.name for f in fields(Settings)
        if f.name != "sources" and f"LEDGER_{f.name.upper()}" not in readme
    ]  # fmt: skip
    assert missing == []


def test_every_module_imports_alone() -> None:
    names = {info.name for info in pkgutil.iter_modules(ledger.__path__)} - {"__main__"}
    loaded = {importlib.import_module(f"ledger.{name}").__name__ for name in names}
    assert loaded == {f"ledger.{name}" for name in names}


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
            f"{path.stem}.{name}": value
            for path in ROOT.glob("ledger/*.py")
            if rank(path.stem) in (2, 3) and path.stem != "migrate"
            for name, value in vars(importlib.import_module(f"ledger.{path.stem}")).items()
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
