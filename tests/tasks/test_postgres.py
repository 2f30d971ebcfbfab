"""A real PostgreSQL server for a home: made once, asks for its password, keeps what it holds, starts where a kill left it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editors.errors import ServiceError
from tasks.postgres import ROLE, database_url, find_programs, postgres_spec
from tasks.supervise import RunningService, begin, supervised
from tests.debian import need
from tests.tasks.test_supervise import eventually

pytestmark = pytest.mark.flow


def told(running: RunningService, query: str, **connection: str) -> list[tuple[object, ...]]:
    import psycopg2

    given = {"host": "127.0.0.1", "port": running.port, "user": ROLE, "dbname": "one",
             "password": (running.directory / "password").read_text()}
    link = psycopg2.connect(**{**given, **connection})
    try:
        link.autocommit = True
        cursor = link.cursor()
        cursor.execute(query)
        return cursor.fetchall() if cursor.description else []
    finally:
        link.close()


def test_it_is_made_once_asks_for_its_password_and_keeps_what_it_holds(tmp_path: Path) -> None:
    need(initdb="postgresql")
    import psycopg2

    with supervised(postgres_spec(("one",)), tmp_path) as running:
        assert (running.directory / "password").stat().st_mode & 0o777 == 0o600
        told(running, "CREATE TABLE kept (word text)")
        told(running, "INSERT INTO kept VALUES ('here')")
        for wrong in ("", "guess"):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                told(running, "SELECT 1", password=wrong)
        assert told(running, "SELECT inet_server_addr()::text, setting FROM pg_settings WHERE name = 'listen_addresses'") == [
            ("127.0.0.1/32", "127.0.0.1")]
        with pytest.raises(ServiceError, match=r"asked for \{'databases': 'one two'\}"):
            begin(postgres_spec(("one", "two")), tmp_path)
    assert eventually(lambda: not running.is_alive, seconds=60)
    # made before its note was written: what a kill leaves
    (tmp_path / "postgres" / "one.made").unlink()
    with supervised(postgres_spec(("one", "two")), tmp_path) as running:
        assert told(running, "SELECT word FROM kept") == [("here",)]
        assert told(running, "SELECT current_database()", dbname="two") == [("two",)]
        assert database_url(running, "two", "psycopg2").endswith(f"@127.0.0.1:{running.port}/two")
        assert "password" not in json.dumps(dict(running.details))


def test_a_machine_without_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="PostgreSQL is not installed: no program initdb") as raised:
        find_programs(tmp_path)
    assert raised.value.hint == "apt-get install postgresql"


def test_the_newest_of_debians_is_taken(tmp_path: Path) -> None:
    for version in ("9", "15", "common"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "initdb").touch(mode=0o755)
    assert find_programs(tmp_path) == tmp_path / "15" / "bin"
