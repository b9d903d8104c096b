"""What a schema is made of: every object that decides what a statement finds, as text.

Two inventories are equal when the schemas behave alike: tables with their columns, defaults,
constraints and indexes, row security and policies, triggers and rules, and the functions with
their bodies. Names of books are left out of the text (`books`), so that those of any
generation compare.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

import migrations
from ledger.books.generations import create_tables, schema_of
from ledger.registry import Registry

SCRATCH: Final = 10**9
"""Numbers of books that are made to be looked at and rolled back begin here."""

SHOWN_MAX: Final = 60
"""Characters of a definition that a finding shows."""

# Each statement returns (kind, name, definition). The parameter is the schema's name.
SELECT_TABLES: Final = """
SELECT 'relation' AS kind, c.relname::text AS name,
       concat_ws(' ',
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'matview'
                WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE c.relkind::text END,
           CASE WHEN c.relpersistence <> 'p' THEN 'persistence ' || c.relpersistence::text END,
           CASE WHEN c.relrowsecurity THEN 'row security' END,
           CASE WHEN c.relforcerowsecurity THEN 'forced row security' END,
           (SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ',')
              FROM pg_catalog.pg_inherits AS i WHERE i.inhrelid = c.oid),
           (SELECT 'inherited by ' || string_agg(i.inhrelid::regclass::text, ',')
              FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid),
           CASE WHEN c.relkind IN ('v', 'm') THEN md5(pg_get_viewdef(c.oid)) END) AS definition
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind NOT IN ('i', 'I', 't', 'c')
"""
SELECT_COLUMNS: Final = """
SELECT 'column' AS kind, c.relname || '.' || a.attname AS name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attnotnull THEN 'not null' END,
           CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END,
           CASE WHEN a.attgenerated <> '' THEN 'generated ' || a.attgenerated::text END,
           'default ' || pg_get_expr(d.adbin, d.adrelid),
           CASE WHEN a.attcollation <> t.typcollation THEN 'collation ' || a.attcollation END
       ) AS definition
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# NOT NULL is part of the column; PostgreSQL 18 has constraints for it too.
SELECT_CONSTRAINTS: Final = """
SELECT 'constraint' AS kind, c.conrelid::regclass::text || '.' || c.conname AS name,
       pg_get_constraintdef(c.oid) AS definition
  FROM pg_catalog.pg_constraint AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.connamespace
 WHERE n.nspname = $1 AND c.contype <> 'n' AND c.conrelid <> 0
"""
SELECT_INDEXES: Final = """
SELECT 'index' AS kind, i.indrelid::regclass::text || '.' || c.relname AS name,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), CASE WHEN NOT i.indisvalid THEN 'invalid' END)
       AS definition
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS o WHERE o.conindid = i.indexrelid)
   AND c.relname NOT LIKE 'pg\\_toast%'
"""
SELECT_TRIGGERS: Final = """
SELECT 'trigger' AS kind, g.tgrelid::regclass::text || '.' || g.tgname AS name,
       'enabled ' || g.tgenabled::text || ' ' || pg_get_triggerdef(g.oid) AS definition
  FROM pg_catalog.pg_trigger AS g
  JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND NOT g.tgisinternal
"""
SELECT_RULES: Final = """
SELECT 'rule' AS kind, c.relname || '.' || r.rulename AS name,
       'enabled ' || r.ev_enabled::text || ' ' || pg_get_ruledef(r.oid) AS definition
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND r.rulename <> '_RETURN'
"""
SELECT_POLICIES: Final = """
SELECT 'policy' AS kind, c.relname || '.' || p.polname AS name,
       concat_ws(' ', p.polcmd::text, pg_get_expr(p.polqual, p.polrelid),
                 pg_get_expr(p.polwithcheck, p.polrelid)) AS definition
  FROM pg_catalog.pg_policy AS p
  JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1
"""
SELECT_FUNCTIONS: Final = """
SELECT 'function' AS kind, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')'
       AS name,
       CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END AS definition
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname = $1
"""
# Operators and types of the schema's own: what a statement means can hang on them.
SELECT_OTHERS: Final = """
SELECT 'operator' AS kind, o.oid::regoperator::text AS name, '' AS definition
  FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
 WHERE n.nspname = $1
 UNION ALL
SELECT 'type', t.typname::text, t.typtype::text
  FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
 WHERE n.nspname = $1 AND t.typtype <> 'c' AND t.typelem = 0
 UNION ALL
SELECT 'type', t.typname::text, 'composite'
  FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
 WHERE n.nspname = $1 AND t.typtype = 'c' AND c.relkind = 'c'
"""
# Who may write beside the owner. What a role may read is the operator's business.
SELECT_GRANTS: Final = """
SELECT 'grant' AS kind,
       c.relname || ' ' || a.privilege_type || ' ' ||
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS name,
       '' AS definition
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL aclexplode(c.relacl) AS a
 WHERE n.nspname = $1 AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
 UNION ALL
SELECT 'grant', c.relname || '.' || t.attname || ' ' || a.privilege_type || ' ' ||
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ''
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid
 CROSS JOIN LATERAL aclexplode(t.attacl) AS a
 WHERE n.nspname = $1 AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
 UNION ALL
SELECT 'grant', p.proname || ' ' || a.privilege_type || ' ' ||
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ''
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
 WHERE n.nspname = $1 AND a.grantee <> p.proowner
 UNION ALL
SELECT 'grant', 'schema ' || a.privilege_type || ' ' ||
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ''
  FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
 WHERE n.nspname = $1 AND a.grantee <> n.nspowner AND a.privilege_type <> 'USAGE'
"""
STATEMENTS: Final = (
    SELECT_TABLES, SELECT_COLUMNS, SELECT_CONSTRAINTS, SELECT_INDEXES, SELECT_TRIGGERS,
    SELECT_RULES, SELECT_POLICIES, SELECT_FUNCTIONS, SELECT_OTHERS, SELECT_GRANTS,
)  # fmt: skip
KINDS: Final = ("relation", "policy", "rule", "trigger", "function", "operator", "grant")
"""Kinds in the order of what they explain; the others come after them."""

KINDS_NEVER: Final = ("policy", "rule", "trigger", "operator", "type")
"""What books of no version have."""

FILE: Final = "inventory.json"
PIN: Final = "SET LOCAL search_path = pg_catalog, pg_temp"
_GENERATION: Final = re.compile(r"\bbooks_\d+\b")

Inventory = Mapping[str, str]
"""`<kind> <name>` → definition."""


async def taken(connection: Any, schema: str) -> dict[str, str]:
    """Return the inventory of a schema; {} when there is none."""
    found: dict[str, str] = {}
    async with connection.transaction():
        # Names are written with their schema, whatever the session's search path is.
        await connection.execute(PIN)
        for statement in STATEMENTS:
            for row in await connection.fetch(statement, schema):
                found[f"{row['kind']} {_told(row['name'])}"] = _told(row["definition"])
    return found


def of_migrations() -> dict[str, str]:
    """Return the inventory that all migrations make together, as it is kept beside them."""
    path = Path(migrations.__path__[0]) / FILE
    return dict(orjson.loads(path.read_bytes()))


async def of_books(connection: Any, registry: Registry) -> dict[str, str]:
    """Return the inventory of the books that this program makes, made and rolled back at once."""
    generation = SCRATCH + secrets.randbelow(SCRATCH)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await create_tables(connection, registry, generation)
        return await taken(connection, schema_of(generation))
    finally:
        await transaction.rollback()


@dataclass(frozen=True, slots=True)
class SchemaDifference:
    """One object that is not what it should be; `how` says it as a sentence."""

    name: str
    how: str


def compared(found: Inventory, expected: Inventory) -> list[SchemaDifference]:
    """Return what of a schema is missing, changed or should not be there.

    A grant that is missing is none: a role may have less than it could.
    """
    unlike = []
    for name in sorted(found.keys() | expected.keys(), key=_importance):
        is_grant = name.startswith("grant ")
        if name not in expected:
            unlike.append(SchemaDifference(name, f"{name}: this program does not make it"))
        elif name not in found:
            if not is_grant:
                unlike.append(SchemaDifference(name, f"{name} is missing"))
        elif found[name] != expected[name]:
            unlike.append(
                SchemaDifference(name, f"{name} is {_differing(found[name], expected[name])}")
            )
    return unlike


def _importance(name: str) -> tuple[int, str]:
    """Sort what explains the rest before it: a table that became a view has no constraints."""
    kind = name.split(" ", 1)[0]
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), name


def never(found: Inventory) -> list[SchemaDifference]:
    """Return what of some books no version of this program makes."""
    return [
        SchemaDifference(name, f"{name}: this program does not make it")
        for name, definition in sorted(found.items())
        if name.split(" ", 1)[0] in KINDS_NEVER
        or (name.startswith("relation ") and definition not in ("table", "sequence"))
        or (name.startswith("function ") and not name.startswith("function journal_positions("))
    ]


def _differing(found: str, expected: str) -> str:
    """Say from where on two definitions differ, bounded."""
    begin = next(
        (n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
        min(len(found), len(expected)),
    )
    begin = max(begin - 10, 0)
    one, two = (text[begin : begin + SHOWN_MAX] for text in (found, expected))
    return f"{one!r}, by the migrations {two!r}"


def _told(text: str) -> str:
    """Return a text without the number of books, and with one blank for every run of them."""
    return " ".join(_GENERATION.sub("books", text).split())
