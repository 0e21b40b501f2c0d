"""Reads what Millstream keeps and writes with software that is not ours, and compares it with DuckDB's own answers.

DuckDB reads checkpoints and Parquet results, delta-rs the Delta table, Python's sqlite3 the database.
Usage: readers.py MILLSTREAM, the program to run.
"""

import datetime
import json
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import deltalake
import duckdb

TRADES = pathlib.Path(__file__).parent.parent / "data" / "us-equity-trades-slice.csv"
SELECT = """SELECT window_end AS closed, szcode, COUNT(*) AS trades, SUM(Turnover) AS shares
            FROM trades [Range 5 minutes, Slide 1 minute] GROUP BY window_end, szcode"""
SINKS = {
    "parquet": "connector = 'files', path = '{folder}/parquet', format = 'parquet'",
    "delta": "connector = 'delta', path = '{folder}/delta'",
    "sqlite": "connector = 'sqlite', path = '{folder}/results.db'",
}
# Long enough for any machine: what is waited for comes in a second.
PATIENCE = 120


def script(folder: pathlib.Path, watches: bool) -> str:
    """The SQL of all three queries; the input is waited for or read to its end."""
    watch = ", watch_interval = '20 ms'" if watches else ""
    statements = [
        "CREATE STREAM trades (szcode VARCHAR, venue VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,"
        f" WATERMARK FOR eventTime AS eventTime) WITH (connector = 'files', path = '{folder}/input'{watch})"
    ]
    for name, options in SINKS.items():
        statements.append(f"CREATE SINK {name} WITH ({options.format(folder=folder)})")
    statements += [f"INSERT INTO {name} {SELECT}" for name in SINKS]
    return "; ".join(statements)


def command(program: str, folder: pathlib.Path, watches: bool) -> list[str]:
    return [program, "run", "-e", script(folder, watches), "--state-dir", f"{folder}/state"]


def read_and_stop(program: str, folder: pathlib.Path, rows: int) -> None:
    """Runs the queries until each has read all rows, and stops them: their windows stay open."""
    running = subprocess.Popen(command(program, folder, watches=True))
    end = time.monotonic() + PATIENCE
    wanted = f"rows read {rows:,},"
    while inspected(program, folder).count(wanted) < len(SINKS):
        assert running.poll() is None, f"it ended with {running.returncode}"
        assert time.monotonic() < end, inspected(program, folder)
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE) == 130, running.returncode


def inspected(program: str, folder: pathlib.Path) -> str:
    """What `state inspect` says; nothing while there is no state or it is being written to."""
    looked = subprocess.run([program, "state", "inspect", f"{folder}/state"], capture_output=True, text=True)
    return looked.stdout


def open_panes(query: pathlib.Path) -> list[tuple]:
    """The panes of the newest checkpoint by their start and key, as DuckDB reads them."""
    newest = max((query / "checkpoints").glob("*.json"))
    manifest = json.loads(newest.read_text().split(" ", 1)[1])
    [stage] = manifest["stages"]
    [leaf] = stage["leaves"]
    rows = []
    for part in leaf["parts"]:
        current = ", ".join(str(pane) for pane in {pane for pane, _ in part["panes"]})
        rows += duckdb.sql(
            f"""SELECT pane_start, szcode, sum("count(Int64(1))[count]"), sum("sum(trades.turnover)[sum]"), min(key_partition)
                FROM read_parquet('{query}/state/{part["file"]}') WHERE pane IN ({current}) GROUP BY ALL"""
        ).fetchall()
    assert all(0 <= row[4] < 1024 for row in rows), rows
    return sorted(row[:4] for row in rows)


def expected_panes(closed: datetime.datetime) -> list[tuple]:
    """Trades by minute, of the minutes that windows behind `closed` still need."""
    return duckdb.sql(
        f"""SELECT date_trunc('minute', eventTime) AS pane, szcode, count(*), sum(Turnover)
            FROM read_csv('{TRADES}') WHERE pane >= TIMESTAMP '{closed}' - INTERVAL 4 MINUTE GROUP BY ALL ORDER BY ALL"""
    ).fetchall()


def expected_windows() -> list[tuple]:
    """All windows, each trade in the five that it belongs to."""
    return duckdb.sql(
        f"""SELECT date_trunc('minute', eventTime) + to_minutes(k) AS closed, szcode, count(*), sum(Turnover)
            FROM read_csv('{TRADES}'), range(1, 6) AS windows(k) GROUP BY ALL ORDER BY ALL"""
    ).fetchall()


def from_sqlite(path: pathlib.Path) -> list[tuple]:
    rows = sqlite3.connect(path).execute("SELECT closed, szcode, trades, shares FROM sqlite").fetchall()
    return sorted((datetime.datetime.fromisoformat(closed), *rest) for closed, *rest in rows)


def from_delta(path: pathlib.Path) -> list[tuple]:
    """The rows of the files that the newest version of the table has."""
    return parquet_rows(deltalake.DeltaTable(path).file_uris())


def parquet_rows(files: list[str]) -> list[tuple]:
    return sorted(duckdb.sql(f"SELECT closed, szcode, trades, shares FROM read_parquet({files})").fetchall())


def check(name: str, actual: list[tuple], expected: list[tuple]) -> None:
    assert expected and actual == expected, f"{name}: {len(actual)} rows, {len(expected)} expected"
    print(f"{name}: {len(actual)} rows, equal")


def main(program: str) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="millstream-interop-"))
    (folder / "input").mkdir()
    shutil.copy(TRADES, folder / "input" / "trades.csv")
    [(rows, last)] = duckdb.sql(f"SELECT count(*), date_trunc('minute', max(eventTime)) FROM read_csv('{TRADES}')").fetchall()
    read_and_stop(program, folder, rows)
    queries = sorted((folder / "state" / "queries").iterdir())
    assert len(queries) == len(SINKS), queries
    for query in queries:
        check("checkpoint, read by DuckDB", open_panes(query), expected_panes(last))
    subprocess.run(command(program, folder, watches=False), check=True)
    windows = expected_windows()
    check("Parquet, read by DuckDB", parquet_rows([str(path) for path in (folder / "parquet").glob("part-*")]), windows)
    check("Delta table, read by delta-rs", from_delta(folder / "delta"), windows)
    check("SQLite, read by Python", from_sqlite(folder / "results.db"), windows)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1])
