"""Promise: the service refuses to start on what it does not understand, and stops without loss."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import orjson
import pytest

from ledger.database import connection as db
from ledger.postgres.server import EmbeddedPostgres, Endpoint
from tests.asking import payment
from tests.conftest import Database, eventually, with_database
from tests.service import PG_BIN, Caller, Reply, Service, calling, serving

ROOT = Path(__file__).parents[2]
SENDERS = 32
REFUSED_SECONDS_MAX = 20.0
CLOSED = (aiohttp.ClientError, ConnectionError)

SELECT_LOG = "SELECT position, encode(event_id, 'hex') AS event_id, body FROM ledger.events"


@pytest.fixture
def stopped(tmp_path: Path) -> Service:
    return Service(tmp_path / "service")


def refusal(service: Service, **environ: str) -> tuple[int, str]:
    """Start it, which must fail; return the exit code and the one line that it says."""
    service.environ = environ
    service.launch()
    try:
        code = service.wait(REFUSED_SECONDS_MAX)
    finally:
        service.clean_up()
    lines = [line for line in service.text().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, service.text()
    return code, lines[0]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LEDGER_PROT": "8080"}, "LEDGER_PROT"),
        ({"LEDGER_SECRET_STRATSX": "x"}, "LEDGER_SECRET_STRATSX"),
        ({"LEDGER_PORT": "http"}, "LEDGER_PORT"),
        ({"LEDGER_PORT": "70000"}, "LEDGER_PORT"),
        ({"LEDGER_BODY_BYTES_MAX": "-1"}, "LEDGER_BODY_BYTES_MAX"),
        ({"LEDGER_RECEIVERS": "0"}, "LEDGER_RECEIVERS"),
        ({"LEDGER_LOG_FORMAT": "xml"}, "LEDGER_LOG_FORMAT"),
        ({"LEDGER_SOURCES": "nobody"}, "nobody"),
        ({"LEDGER_CONFIG": "/nowhere/ledger.toml"}, "/nowhere/ledger.toml"),
        ({"LEDGER_HOST": "0.0.0.0"}, "LEDGER_API_TOKENS"),
        ({"LEDGER_HOST": "0.0.0.0", "LEDGER_API_TOKENS": "t"}, "LEDGER_SECRET_STRAITSX"),
        (
            {
                "LEDGER_HOST": "0.0.0.0",
                "LEDGER_API_TOKENS": "t",
                "LEDGER_SECRET_STRAITSX": "s",
            },
            "LEDGER_SECRET_GOKART",
        ),
    ],
)
def test_a_setting_that_is_not_understood_refuses_to_start(
    stopped: Service, environ: dict[str, str], words: str
) -> None:
    code, line = refusal(stopped, **environ)
    assert code == 2
    assert words in line
    assert not stopped.data_dir.exists()


def test_a_toml_key_that_is_not_understood_refuses_to_start(stopped: Service) -> None:
    stopped.folder.mkdir()
    (stopped.folder / "ledger.toml").write_text('receiver = 2\n[sources.a]\nprovider = "gokart"\n')
    code, line = refusal(stopped, LEDGER_CONFIG="ledger.toml")
    assert (code, "receiver" in line) == (2, True)


def test_a_port_in_use_is_stated_with_what_to_do(stopped: Service) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, line = refusal(stopped, LEDGER_PORT=port)
    assert (code, port in line, "LEDGER_PORT" in line) == (2, True, True)


def with_password(dsn: str, password: str) -> str:
    scheme, _, rest = dsn.partition("://")
    account, _, place = rest.rpartition("@")
    return f"{scheme}://{account.partition(':')[0]}:{password}@{place}"


@pytest.mark.parametrize("wrong", ["password", "database", "scheme"])
def test_a_database_that_refuses_is_stated_in_one_line_without_the_password(
    cluster: Endpoint, stopped: Service, wrong: str
) -> None:
    dsn = {
        "password": with_password(cluster.service_dsn, "canary-password"),
        "database": with_database(cluster.service_dsn, "nowhere"),
        "scheme": "mysql://ledger:canary-password@127.0.0.1/ledger",
    }[wrong]
    code, line = refusal(stopped, LEDGER_DATABASE_URL=dsn)
    expected = 2 if wrong == "scheme" else 3
    assert (code, "LEDGER_DATABASE_URL" in line) == (expected, True), line
    assert "canary-password" not in stopped.text()


async def test_a_service_role_that_owns_nothing_may_start_but_not_migrate(
    database: Database, tmp_path: Path, cluster: Endpoint
) -> None:
    with serving(tmp_path / "lesser", LEDGER_DATABASE_URL=database.service_dsn) as service:
        async with calling(service.url) as caller:
            assert (await caller.report("straitsx", orjson.dumps(payment(1))))["position"] == 1
    async with database.owner() as owner:
        await owner.execute("DELETE FROM ledger.migrations")
    other = Service(tmp_path / "behind")
    code, line = refusal(other, LEDGER_DATABASE_URL=database.service_dsn)
    assert (code, "ledger migrate" in line) == (3, True), line


class Load:
    """Senders of new callbacks that count every answer until the service is gone."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.kept: dict[int, tuple[str, bytes]] = {}
        self.seen: Counter[str] = Counter()
        self._number = 0
        self._gone = False

    async def run(self) -> None:
        async with calling(self.service.url) as caller, asyncio.TaskGroup() as tasks:
            for _ in range(SENDERS):
                tasks.create_task(self._send(caller))

    async def _send(self, caller: Caller) -> None:
        while not self._gone:
            self._number += 1
            body = orjson.dumps(payment(self._number))
            try:
                self._count(await caller.post("straitsx", body), body)
            except CLOSED as error:
                self.seen["closed"] += 1
                self._gone = self._gone or isinstance(error, aiohttp.ClientConnectorError)

    def _count(self, reply: Reply, body: bytes) -> None:
        self.seen[str(reply.status)] += 1
        if reply.status == 200:
            reported = reply.json
            assert reported["position"] not in self.kept
            self.kept[reported["position"]] = (reported["event_id"], body)
        else:
            assert reply.status == 503, reply
            assert reply.headers["Retry-After"]
            assert reply.json["status"] == "unavailable"

    async def reached(self, count: int) -> bool:
        return self.seen["200"] >= count


async def check_kept(data_dir: Path, load: Load) -> None:
    """Every callback that was acknowledged is in the log at its position."""
    server = EmbeddedPostgres(data_dir, pg_bin=PG_BIN)
    endpoint = await server.start()
    try:
        async with db.connected(endpoint.service_dsn) as connection:
            rows = await connection.fetch(SELECT_LOG)
    finally:
        await server.stop()
    stored = {row["position"]: (row["event_id"], bytes(row["body"])) for row in rows}
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert load.kept.items() <= stored.items()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM twice", "Ctrl-C"])
async def test_a_stop_under_load_loses_nothing_that_was_acknowledged(
    tmp_path: Path, how: str
) -> None:
    with serving(tmp_path) as service:
        load = Load(service)
        running = asyncio.create_task(load.run())
        await eventually(lambda: load.reached(300))
        if how == "Ctrl-C":
            os.killpg(service.running.pid, signal.SIGINT)
        else:
            service.terminate()
        if how == "SIGTERM twice":
            await eventually(
                lambda: asyncio.to_thread(lambda: b"service_stopping" in service.reported())
            )
            service.terminate()
        await asyncio.wait_for(running, 30)
        assert await asyncio.to_thread(service.wait) == 0
        assert set(load.seen) <= {"200", "503", "closed"}, load.seen
        assert not (service.data_dir / "pgdata" / "postmaster.pid").exists()
        await check_kept(service.data_dir, load)


async def test_a_killed_supervisor_leaves_no_process_and_the_next_start_has_everything(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as service:
        async with calling(service.url) as caller:
            for n in range(1, 21):
                await caller.report("straitsx", orjson.dumps(payment(n)))
        pids = [pid for role in ("all", "projector", "evidence") for pid in service.pids(role)]
        assert len(pids) == 3
        service.running.kill()
        service.wait()
        await eventually(lambda: asyncio.to_thread(lambda: not any(map(alive, pids))))
        service.start()
        async with calling(service.url) as caller:
            again = await caller.report("straitsx", orjson.dumps(payment(20)))
            assert (again["status"], again["position"]) == ("duplicate", 20)
            more = await caller.report("straitsx", orjson.dumps(payment(21)))
            assert (more["status"], more["position"]) == ("accepted", 21)
            answer = await caller.ask("/v1/wallets", at_least="straitsx:21")
            assert [(w["currency"], w["available"]) for w in answer["wallets"]] == [
                ("XSGD", "199.5")
            ]
        assert await asyncio.to_thread(service.stop) == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_service_that_cannot_start_its_processes_again_stops_with_an_error(
    database: Database, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.symlink_to(Path(sys.executable).resolve())
    service = Service(
        tmp_path / "service",
        {"LEDGER_DATABASE_URL": database.service_dsn, "PYTHONPATH": os.pathsep.join(sys.path)},
        python=str(python),
    )
    try:
        service.start()
        python.unlink()
        (web,) = service.pids("all")
        os.kill(web, signal.SIGKILL)
        assert service.wait() == 3
        line = service.text().splitlines()[-1]
        assert line.startswith("ledger: ")
        assert str(python) in line
        assert not service.pids("projector") + service.pids("evidence")
    finally:
        service.clean_up()


def test_answers_have_priority_over_folding_and_folding_over_all_else(
    database: Database, tmp_path: Path
) -> None:
    with serving(tmp_path, LEDGER_DATABASE_URL=database.service_dsn) as service:
        supervisor = os.getpriority(os.PRIO_PROCESS, service.running.pid)
        (web,), (projector,), (evidence,) = (
            [os.getpriority(os.PRIO_PROCESS, pid) - supervisor for pid in service.pids(role)]
            for role in ("all", "projector", "evidence")
        )
    assert (web, projector, evidence) == (0, 5, 10)


async def test_two_receivers_share_one_port_and_one_log(database: Database, tmp_path: Path) -> None:
    with serving(
        tmp_path, LEDGER_DATABASE_URL=database.service_dsn, LEDGER_RECEIVERS="2"
    ) as service:
        assert len(service.pids("all")) == 2
        replies = []
        for _ in range(10):
            async with calling(service.url) as caller:
                body = [orjson.dumps(payment(n)) for n in range(50)]
                replies += await asyncio.gather(*(caller.post("straitsx", each) for each in body))
    assert {reply.status for reply in replies} == {200}
    assert {reply.json["position"] for reply in replies} == set(range(1, 51))
    firsts = [reply for reply in replies if reply.json["status"] == "accepted"]
    assert len(firsts) == 50


async def test_roles_run_apart_over_one_database(database: Database, tmp_path: Path) -> None:
    given = {"LEDGER_DATABASE_URL": database.service_dsn}
    with (
        serving(tmp_path / "receiver", "serve", "--role", "receiver", **given) as receiver,
        serving(tmp_path / "projector", "serve", "--role", "projector", **given),
        serving(tmp_path / "query", "serve", "--role", "query", **given) as query,
    ):
        async with calling(receiver.url) as sender, calling(query.url) as asker:
            assert (await sender.report("straitsx", orjson.dumps(payment(1))))["position"] == 1
            answer = await asker.ask("/v1/wallets", at_least="straitsx:1")
            assert [w["available"] for w in answer["wallets"]] == ["9.5"]
            assert (await sender.request("GET", "/v1/wallets")).status == 404
            assert (await asker.post("straitsx", b"{}")).status == 404


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("handlers/straitsx_payment.py", "HANDLER = Handler(", "SyntaxError"),
        ("handlers/straitsx_payment.py", "HANDLR = 1", "declares no HANDLER"),
        ("handlers/straitsx_payment_copy.py", None, "the kind payment is declared by"),
        ("projections/rfi.py", "import nowhere", "No module named 'nowhere'"),
        ("projections/rfi.py", "PROJETION = 1", "declares no PROJECTION"),
    ],
)
def test_a_handler_or_projection_that_cannot_be_used_is_named_before_anything_is_served(
    stopped: Service, name: str, text: str | None, words: str
) -> None:
    for package in ("handlers", "projections"):
        shutil.copytree(ROOT / package, stopped.folder / package)  # the current folder comes first
    if text is None:
        text = (ROOT / "handlers" / "straitsx_payment.py").read_text()
    (stopped.folder / name).write_text(text)
    code, line = refusal(stopped)
    assert code == 2
    assert line.startswith(f"ledger: {name}")
    assert words in line


async def test_questions_are_not_ready_before_the_first_books_are(
    database: Database, tmp_path: Path
) -> None:
    given = {"LEDGER_DATABASE_URL": database.service_dsn}
    with (
        serving(tmp_path / "receiver", "serve", "--role", "receiver", **given) as receiver,
        serving(tmp_path / "query", "serve", "--role", "query", **given) as query,
    ):
        async with calling(receiver.url) as sender, calling(query.url) as asker:
            assert (await sender.request("GET", "/readyz")).status == 200
            early = await asker.request("GET", "/readyz")
            assert (early.status, "no books yet" in early.json["reason"]) == (503, True)
            with serving(tmp_path / "projector", "serve", "--role", "projector", **given):

                async def is_ready() -> bool:
                    return (await asker.request("GET", "/readyz")).status == 200

                await eventually(is_ready)
