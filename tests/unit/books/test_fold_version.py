"""Promise: what decides the books is their version; nothing else makes them be folded again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ledger.books import fold_version
from ledger.model import OwnerRule, SourceTerms

ROOT = Path(__file__).parents[3]
VERSION = """
from ledger.books.fold_version import current_version
print(current_version([]))
"""


def version_of(code: Path) -> str:
    """Return the version of the books that a copy of the program folds, by a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-c", VERSION], cwd=code, env=environ, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


@cache
def own_version() -> str:
    return version_of(ROOT)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Return a copy of the program."""
    for name in ("handlers", "projections", "ledger"):
        leave_out = shutil.ignore_patterns("samples", "console")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave_out)
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text, (file, old)
    file.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("projections/postings.py", '"expenses:fees"', '"expenses:all-fees"'),
        ("handlers/straitsx_payout.py", '"payout"', '"pay-out"'),
        ("ledger/fold/change.py", "timedelta(days=1)", "timedelta(days=2)"),
        ("ledger/fold/dispatch.py", "if len(fits) == 1:", "if len(fits) >= 1:"),
        ("ledger/payload.py", "TEXT_MAX: Final = 512", "TEXT_MAX: Final = 500"),
        ("ledger/strict_json.py", "DEPTH_MAX: Final = 64", "DEPTH_MAX: Final = 65"),
        ("ledger/model.py", 'RETRY = "retry"', 'RETRY = "again"'),
        ("ledger/books/findings.py", "b.credits <> b.debits", "b.credits < b.debits"),
        ("ledger/books/generations.py", "fillfactor = 50", "fillfactor = 60"),
        ("ledger/books/table_sql.py", "< 1e40", "< 1e39"),
        ("projections/history.py", '"position": "bigint"', '"position": "numeric"'),
    ],
    ids=lambda value: value if str(value).endswith(".py") else "",
)
def test_what_decides_the_books_is_another_version(
    code: Path, file: str, old: str, new: str
) -> None:
    change(code / file, old, new)
    assert version_of(code) != own_version()


def test_a_new_handler_is_another_version(code: Path) -> None:
    shutil.copy(code / "handlers/straitsx_payout.py", code / "handlers/another_payout.py")
    change(code / "handlers/another_payout.py", '"straitsx"', '"gokart"')
    change(code / "handlers/another_payout.py", "MONEY_KIND = ", "KIND = ")
    assert version_of(code) != own_version()


def test_what_decides_nothing_is_the_same_version(code: Path) -> None:
    change(code / "ledger/books/projection_worker.py", "YIELD_EVERY_EVENTS: Final = 50",
           "YIELD_EVERY_EVENTS: Final = 60")  # fmt: skip
    change(code / "ledger/books/fold_connections.py", "TURNS_MAX: Final = 3",
           "TURNS_MAX: Final = 4")  # fmt: skip
    change(code / "ledger/books/store.py", "TOGETHER_MAX: Final = 200",
           "TOGETHER_MAX: Final = 300")  # fmt: skip
    change(code / "ledger/rebuild/plan.py", "CHUNKS: Final = 16", "CHUNKS: Final = 8")
    change(code / "ledger/errors.py", "class NotFound(LedgerError)", "class Nowhere(LedgerError)")
    change(code / "ledger/errors.py", "class NoBooks(LedgerError):",
           "NotFound = Nowhere\n\n\nclass NoBooks(LedgerError):")  # fmt: skip
    assert version_of(code) == own_version()


def test_comments_docstrings_and_layout_are_the_same_version(code: Path) -> None:
    for file in (*code.glob("handlers/*.py"), *code.glob("projections/*.py"),
                 *code.glob("ledger/fold/*.py")):  # fmt: skip
        text = file.read_text("utf-8").replace('"""', '"""Another sentence. ', 1)
        file.write_text(f"{text}\n\n\n# a comment\n", "utf-8")
    assert version_of(code) == own_version()


def test_the_terms_of_a_source_are_part_of_the_version() -> None:
    terms = SourceTerms("points", "gokart", "USD")
    assert fold_version.current_version([terms]) == fold_version.current_version([terms])
    owner = OwnerRule("idempotency_id", "(.+)")
    others = (
        SourceTerms("points", "gokart", "EUR"),
        SourceTerms("points", "gokart", "USD", owner_of=owner),
        SourceTerms("points", "gokart", "USD", owner_of=OwnerRule("idempotency_id", "(.*)")),
        SourceTerms("points", "gokart", "USD", owner_of=OwnerRule("external_reference", "(.+)")),
        SourceTerms("points", "gokart", "USD", date_by="receipt"),
    )
    versions = {fold_version.current_version([each]) for each in (terms, *others)}
    assert len(versions) == 1 + len(others)


def test_logs_of_statements_have_no_terms() -> None:
    statements = SourceTerms("bank", "statement")
    assert fold_version.current_version([statements]) == fold_version.current_version([])


def test_every_module_that_the_fold_imports_is_covered() -> None:
    found = fold_version.modules()
    for name in ("ledger.model", "ledger.payload", "ledger.strict_json", "ledger.callback_errors",
                 "ledger.fold.batch", "ledger.fold.translate", "handlers.straitsx_payment",
                 "projections.postings"):  # fmt: skip
        assert name in found
    tops = {name.partition(".")[0] for name in found}
    assert tops == {"handlers", "projections", "ledger"}
    assert not {name for name in found if name.startswith("ledger.config")}
