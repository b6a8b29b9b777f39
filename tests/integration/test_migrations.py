"""The schema is the sum of the migrations, on SQLite and PostgreSQL, also from an installed wheel.

Not covered here: catalogues of many rows.
"""

import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from storage.database import Database, open_database, upgrade
from storage.errors import CatalogueTooNew, CatalogueUnavailable, StorageError
from storage.queue import Queue
from storage.schema import METADATA

LATER = datetime(2030, 1, 1, tzinfo=UTC)
OLD_ROWS = """\
INSERT INTO studies (id, study_instance_uid, first_received_at, last_received_at, routed)
VALUES (1, '1.2', '2026-01-01 00:00:00', '2026-01-01 00:00:00', TRUE);
INSERT INTO series (id, study_id, series_instance_uid, modality, patient, state, instances,
conflicts, size, first_received_at, last_received_at, attributes)
VALUES (1, 1, '1.2.3', 'CT', '', 'complete', 1, 0, 9, '2026-01-01 00:00:00',
'2026-01-01 00:00:00', '{}');
INSERT INTO jobs (id, state, scope, series_id, fingerprint, model, model_version, configuration,
routes, destinations, priority, request_reason, generation, attempts, token, due_at, created_at)
VALUES (1, 'waiting', 's', 1, 'f', 'm', '1', 'c', '[]', '[]', 2, 'r', 1, 0, 0,
'2026-01-01 00:00:00', '2026-01-01 00:00:00')"""
ROOT = Path(__file__).resolve().parents[2]


def test_autogenerate_finds_no_difference(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_columns_indexes_and_conditions_are_those_of_the_schema(
    database: Database, tmp_path: Path
) -> None:
    if database.dialect != "sqlite":
        pytest.skip("compared by text, which only SQLite keeps")
    created = sa.create_engine(f"sqlite:///{tmp_path / 'created.sqlite'}")
    METADATA.create_all(created)
    with created.connect() as one, database.read() as two:
        assert definitions(one) == definitions(two)
    created.dispose()


def definitions(connection: sa.Connection) -> dict[str, list[str]]:
    """The words of each CREATE, sorted, as the order of the constraints does not matter."""
    rows = connection.execute(
        sa.text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%'")
    )
    return {name: sorted(sql.replace(",", " ").split()) for name, sql in rows if sql}


def test_upgrade_is_idempotent(database_url: str) -> None:
    upgrade(database_url)
    upgrade(database_url)


def test_a_catalogue_of_the_first_schema_keeps_its_jobs(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0001")
    database = open_database(empty_database_url)
    with database.transaction() as connection:
        for statement in OLD_ROWS.split(";"):
            connection.execute(sa.text(statement))
    database.close()
    upgrade(empty_database_url)
    database = open_database(empty_database_url)
    job = Queue(database).claim(worker="w", models=["m"], now=LATER, lease_until=LATER)
    database.close()
    assert job is not None
    assert (job.request.model, job.request.inputs) == ("m", {})


def test_a_newer_schema_is_refused(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    database = open_database(empty_database_url)
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(CatalogueTooNew, match="not known to this version"):
        upgrade(empty_database_url)


def test_a_server_that_does_not_answer_is_said() -> None:
    with pytest.raises(CatalogueUnavailable, match="catalogue"):
        upgrade("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(StorageError, match="allowed: sqlite"):
        open_database("mysql://host/x")


def test_sqlite_keeps_what_it_committed_through_a_power_cut(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a folder' / 'catalogue.sqlite'}"
    upgrade(url)
    database = open_database(url)
    with database.read() as connection:
        pragmas = {
            name: connection.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30000,
    }


def test_postgresql_never_waits_without_an_end(database: Database) -> None:
    if database.dialect != "postgresql":
        pytest.skip("SQLite has its busy_timeout")
    with database.read() as connection:
        shown = [
            connection.execute(sa.text(f"SHOW {name}")).scalar_one()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout")
        ]
    assert shown == ["30s", "1min"]


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    insert = sa.text("INSERT INTO quarantine VALUES (1, 'k', 1, 'r', '2025-01-01', 'X')")
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:  # noqa: PT012
        connection.execute(insert)
        connection.execute(insert)
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM quarantine")).scalar_one() == 0


def test_an_installed_wheel_upgrades(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import storage.database as d, sys; assert d.__file__.startswith(sys.argv[2]), d.__file__;"
        "d.upgrade(sys.argv[1])"
    )
    url, site = f"sqlite:///{tmp_path / 'catalogue.sqlite'}", str(tmp_path / "site")
    subprocess.run(
        [sys.executable, "-c", program, url, site],
        cwd=tmp_path,
        env={"PYTHONPATH": site},
        check=True,
    )
