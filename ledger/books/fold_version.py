"""The version of the books: a digest of what decides them besides the log.

That is the code of `handlers/`, `projections/` and `ledger.fold` with every module of this project
that they import, the findings kept in the books, the statements that make their tables, and the
sources' terms. Books of another version are folded again from the log.

Code counts as its syntax tree: comments, docstrings and layout are no other version. Pauses, sizes
of batches, connections and how rows are written decide nothing and are not among these modules.
"""

from __future__ import annotations

import ast
import hashlib
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, Final

from ledger import registry
from ledger.books.generations import ddl
from ledger.errors import RegistryError
from ledger.model import SourceTerms

PURE: Final = ("handlers", "projections", "ledger.fold")
"""The packages that fold."""

KEPT: Final = "ledger.books.findings"
"""Decides rows of the books that follow from other rows."""

_PROJECT: Final = frozenset({"handlers", "projections", "ledger"})


def current_version(terms: Iterable[SourceTerms]) -> str:
    """Return the version of the books that this program folds under these terms: 16 hex digits."""
    settings = "|".join(
        f"{t.source}:{t.provider}:{t.currency}:{sorted(t.wallets.items())}:{t.owner_of}:{t.date_by}"
        for t in sorted(terms, key=lambda t: t.source)
        if t.provider != registry.STATEMENT  # they come with the first import and have no terms
    )
    return _digest(f"{_program_version()}|{settings}")


@cache
def _program_version() -> str:
    """Digest the program once: files that change later are not what this process runs."""
    code = [f"{name} {_digest(_written(tree))}" for name, tree in sorted(modules().items())]
    return _digest("\n".join([*code, *ddl(registry.load())]))


def modules() -> dict[str, ast.Module]:
    """Return the modules that decide the books, without docstrings, by following imports."""
    found: dict[str, ast.Module] = {}
    pending = [KEPT, *(name for package in PURE for name in _members(package))]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = _parsed(Path(str(_spec(name).origin)))
            pending += _imported(name, found[name])
    return found


def _parsed(path: Path) -> ast.Module:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a bare text: a docstring."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _written(node: Any) -> str:
    """Write a syntax tree. Empty fields are left out: versions of Python differ in those."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({','.join(f'{name}={_written(v)}' for name, v in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    return repr(node)


def _members(package: str) -> Iterator[str]:
    """Name a package and its modules."""
    yield package
    for info in pkgutil.iter_modules(_spec(package).submodule_search_locations, f"{package}."):
        yield info.name


@cache
def _spec(module: str) -> ModuleSpec:
    """Find a module. Raises RegistryError when there is none."""
    found = find_spec(module)
    if found is None or found.origin is None:
        raise RegistryError(f"{module} is imported, but there is no such module")
    return found


def _imported(module: str, tree: ast.Module) -> Iterator[str]:
    """Name the modules of this project that a module imports."""
    package = module if _is_package(module) else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            if not _is_ours(base):
                continue
            if not _is_package(base):
                yield base
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if find_spec(inner) is not None else base


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _PROJECT


def _is_package(module: str) -> bool:
    return _spec(module).submodule_search_locations is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
