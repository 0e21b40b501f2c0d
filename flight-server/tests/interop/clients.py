"""Clients that nobody here wrote against `millstream serve`: ADBC, pyarrow, pandas, polars, SQLAlchemy, JDBC, plain HTTP.

`clients.py PROGRAM [CHECK …]` starts servers of its own in temporary folders, prints a line for each check and ends with
1 if one fails. JDBC_JAR names the jar of the Arrow Flight SQL JDBC driver, DIALECT_PYTHON a Python with flightsql-dbapi,
FLIGHT_SQL_CLIENT the program of the arrow-flight crate;
what is not there is skipped, and said to be.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow
import pyarrow.flight as flight

PROGRAM = sys.argv[1]
TRADES = """CREATE STREAM trades (szcode VARCHAR, price DOUBLE, turnover BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
            WITH (connector = 'push')"""
TOTALS = """CREATE MATERIALIZED VIEW totals AS
            SELECT window_end, szcode, SUM(turnover) AS turnover, COUNT(*) AS trades
            FROM trades [Range 10 seconds, Slide 10 seconds] GROUP BY window_end, szcode"""


class Skipped(Exception):
    """A client that cannot be had."""


class Server:
    """A server over a data directory, until it is stopped or killed."""

    def __init__(self, folder, *arguments, **streams):
        command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **streams)
        said = self.process.stdout.readline()
        assert "listens on" in said, f"the server said {said!r}"
        self.address = said.split("://")[1].strip()

    def connect(self):
        return flightsql.connect(f"grpc://{self.address}", autocommit=True)

    def post(self, stream, body, kind, **headers):
        headers = {"content-type": kind, **headers}
        url = f"http://{self.address}/v1/streams/{stream}"
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        assert code in (0, 130), f"the server ended with {code}"

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)


@contextlib.contextmanager
def server(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        running = Server(folder, *arguments)
        try:
            yield running
        finally:
            running.kill()


def rows(count, start=0):
    """Trades of two codes, ten in a second of event time."""
    numbers = range(start, start + count)
    return pyarrow.table(
        {
            "szcode": pyarrow.array(["A" if number % 2 == 0 else "B" for number in numbers]),
            "price": pyarrow.array([float(number) for number in numbers]),
            "turnover": pyarrow.array([number % 7 for number in numbers], pyarrow.int64()),
            "ts": pyarrow.array([number * 100 for number in numbers], pyarrow.timestamp("ms")),
        }
    )


def query(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def wait_for(connection, sql, expected):
    """Asks until the answer is there; the last one is what a failure shows."""
    for _ in range(600):
        found = query(connection, sql)
        if found == expected:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"{sql}: {found} in place of {expected}")


def adbc_asks_and_declares():
    with server() as running, running.connect() as connection:
        assert query(connection, "SELECT 1 + 1 AS two, 'x' AS x, NULL AS n") == [(2, "x", None)]
        assert query(connection, TRADES) == []
        with connection.cursor() as cursor:
            cursor.execute("SHOW STREAMS")
            assert [row[0] for row in cursor.fetchall()] == ["trades"]
            try:
                cursor.execute("SELECT nothing FROM trades")
                raise AssertionError("a wrong statement was taken")
            except adbc_driver_manager.ProgrammingError as error:
                assert "nothing" in str(error) and "column 8" in str(error), error
            cursor.execute("EXPLAIN SELECT price FROM trades WHERE price > 1")
            explained = cursor.fetchall()
            assert any("price" in row[0] for row in explained) and len(explained) > 5, explained
            cursor.execute("DROP STREAM trades")
        try:
            query(connection, "DROP STREAM trades")
            raise AssertionError("a statement was carried out twice or not at all")
        except adbc_driver_manager.Error as error:
            assert "trades" in str(error), error


def adbc_binds_parameters():
    with server() as running, running.connect() as connection:
        found = query(connection, "SELECT ? + 1 AS i, ? AS s, ? AS f", (41, "it's", 0.5))
        assert found == [(42, "it's", 0.5)], found
        found = query(connection, "SELECT x FROM (VALUES (1), (2), (3)) AS t(x) WHERE x > $1 ORDER BY x", (1,))
        assert found == [(2,), (3,)], found


def adbc_sees_metadata():
    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        query(connection, TOTALS)
        query(connection, "CREATE VIEW dear AS SELECT * FROM totals WHERE turnover > 10")
        objects = connection.adbc_get_objects(depth="columns").read_all().to_pylist()
        tables = objects[0]["catalog_db_schemas"][0]["db_schema_tables"]
        kinds = {table["table_name"]: table["table_type"] for table in tables}
        assert kinds == {"dear": "VIEW", "totals": "TABLE", "trades": "STREAM"}, kinds
        columns = [column["column_name"] for table in tables for column in table["table_columns"]]
        assert columns.count("szcode") == 3, columns
        schema = connection.adbc_get_table_schema("trades")
        assert schema.field("price").type == pyarrow.float64(), schema
        assert schema.field("szcode").type == pyarrow.string(), schema
        assert "STREAM" in connection.adbc_get_table_types()
        assert connection.adbc_get_info()["vendor_name"] == "Millstream"
        with connection.cursor() as cursor:
            assert cursor.adbc_execute_schema("SELECT 1 AS one").names == ["one"]
            partitions, schema = cursor.adbc_execute_partitions("SELECT 1 AS one")
            assert len(partitions) == 1 and schema.names == ["one"]
            cursor.adbc_read_partition(partitions[0])
            assert cursor.fetchall() == [(1,)]


def adbc_ingests_a_million_rows():
    with server("--durability", "process_crash") as running, running.connect() as connection:
        query(connection, TRADES)
        query(connection, TOTALS)
        with connection.cursor() as cursor:
            table = rows(1_000_000)
            # The driver sends each batch as one message, of 16 MiB at the most.
            batches = table.to_reader(max_chunksize=1 << 16)
            assert cursor.adbc_ingest("trades", batches, mode="append") == 1_000_000
        wait_for(connection, "SELECT SUM(trades) FROM totals", [(999_900,)])
        with connection.cursor() as cursor:
            # A stream that is not there is made, and one that is there is not made again.
            assert cursor.adbc_ingest("more", table.slice(0, 10), mode="create") == 10
            try:
                cursor.adbc_ingest("more", table.slice(0, 10), mode="create")
                raise AssertionError("a stream was made twice")
            except adbc_driver_manager.Error:
                pass


def adbc_follows_an_endless_query_and_leaves_it():
    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        cursor = connection.cursor()
        cursor.execute("SELECT szcode, price FROM trades WHERE price < 3")
        reader = cursor.fetch_record_batch()
        with running.connect() as other, other.cursor() as producer:
            producer.adbc_ingest("trades", rows(5), mode="append")
        found = []
        while len(found) < 3:
            found += reader.read_next_batch().to_pylist()
        assert [row["price"] for row in found] == [0.0, 1.0, 2.0], found
        cursor.adbc_cancel()
        cursor.close()
        with running.connect() as other:
            wait_for(other, "SHOW QUERIES", [])


def pandas_and_polars_read():
    import pandas
    import polars

    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        query(connection, TOTALS)
        with connection.cursor() as cursor:
            cursor.adbc_ingest("trades", rows(101), mode="append")
        wait_for(connection, "SELECT COUNT(*) FROM totals", [(2,)])
        text = "SELECT szcode, turnover FROM totals ORDER BY szcode"
        frame = pandas.read_sql(text, connection)
        assert frame["szcode"].tolist() == ["A", "B"] and frame["turnover"].sum() > 0, frame
        frame = polars.read_database(text, connection)
        assert frame["szcode"].to_list() == ["A", "B"], frame


def adbc_subscribes_to_a_view():
    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        query(connection, TOTALS)
        with running.connect() as other:
            cursor = other.cursor()
            cursor.execute("SUBSCRIBE totals")
            reader = cursor.fetch_record_batch()
            assert reader.schema.names[-1] == "_epoch", reader.schema
            with connection.cursor() as producer:
                producer.adbc_ingest("trades", rows(101), mode="append")
            found = []
            while len(found) < 2:
                found += reader.read_next_batch().to_pylist()
            assert sorted(row["szcode"] for row in found) == ["A", "B"], found
            cursor.adbc_cancel()
            cursor.close()
            # Nothing that came before is given again.
            cursor = other.cursor()
            cursor.execute(f"SUBSCRIBE totals AS OF EPOCH {found[0]['_epoch']}")
            with connection.cursor() as producer:
                producer.adbc_ingest("trades", rows(101, 101), mode="append")
            reader, again = cursor.fetch_record_batch(), []
            while not again:
                again = reader.read_next_batch().to_pylist()
            assert again[0]["window_end"] > found[0]["window_end"], again
            cursor.adbc_cancel()
            cursor.close()


def pyarrow_puts_batches_once():
    with server() as running:
        with running.connect() as connection:
            query(connection, TRADES)
            client = flight.connect(f"grpc://{running.address}")
            table = rows(6)
            descriptor = flight.FlightDescriptor.for_path("trades")
            writer, acknowledged = client.do_put(descriptor, table.schema)
            said = []
            # The second one is sent again, as a producer does that has not heard of it.
            for sequence, start in [(1, 0), (2, 3), (2, 3)]:
                batch = table.slice(start, 3).to_batches()[0]
                metadata = json.dumps({"producer": "p", "sequence": sequence}).encode()
                writer.write_with_metadata(batch, metadata)
                said.append(json.loads(acknowledged.read().to_pybytes()))
            writer.close()
            repeated = [answer.get("repeated", False) for answer in said]
            assert repeated == [False, False, True], said
            cursor = connection.cursor()
            cursor.execute("SELECT price FROM trades")
            reader = cursor.fetch_record_batch()
            found = []
            while len(found) < 6:
                found += reader.read_next_batch().column(0).to_pylist()
            assert found == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], found
            cursor.adbc_cancel()
            cursor.close()


def statement(sql):
    """The command CommandStatementQuery as the protocol has it, in an Any."""

    def field(payload):
        size, digits = len(payload), []
        while True:
            size, low = size >> 7, size & 127
            digits.append(low | (128 if size else 0))
            if not size:
                return bytes(digits) + payload

    kind = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return b"\x0a" + field(kind) + b"\x12" + field(b"\x0a" + field(sql.encode()))


def pyarrow_goes_on_with_a_select():
    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        uri = f"grpc://{running.address}"

        def read(client, sql, count):
            """So many rows of the first column, and what was said with the last of them."""
            info = client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)))
            reader, found = client.do_get(info.endpoints[0].ticket), []
            while True:
                chunk = reader.read_chunk()
                found += chunk.data.column(0).to_pylist()
                said = json.loads(chunk.app_metadata.to_pybytes())
                if len(found) >= count and said["epoch"] is not None:
                    return found, said

        running.post("trades", b"A,1,10,2026-01-01T00:00:01\nB,2,20,2026-01-01T00:00:02\n", "text/csv")
        lost = flight.connect(uri)
        found, said = read(lost, "SELECT turnover FROM trades", 2)
        assert found == [10, 20], found
        lost.close()
        running.post("trades", b"A,3,30,2026-01-01T00:00:03\n", "text/csv")
        resume = f"SUBSCRIBE QUERY '{said['query']}' AS OF EPOCH {said['epoch']}"
        with flight.connect(uri) as client:
            found, said = read(client, resume, 1)
        assert found == [30], found


def arrow_command_line_asks():
    """The program flight_sql_client that comes with the arrow-flight crate."""
    program = os.environ.get("FLIGHT_SQL_CLIENT")
    if not program:
        raise Skipped("FLIGHT_SQL_CLIENT names no program")
    with server() as running, running.connect() as connection:
        host, port = running.address.split(":")

        def ask(*arguments):
            command = [program, "--host", host, "--port", port, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            return done.returncode, done.stdout + done.stderr

        query(connection, TRADES)
        query(connection, TOTALS)
        for wanted, arguments in [
            ("millstream", ["catalogs"]),
            ("public", ["db-schemas", "millstream"]),
            ("totals", ["tables", "millstream"]),
            ("| 42 ", ["statement-query", "SELECT 41 + 1 AS answer"]),
            ("| 42 ", ["prepared-statement-query", "SELECT CAST($1 AS BIGINT) + 1 AS answer", "-p", "$1=41"]),
            ("trades", ["statement-query", "SHOW STREAMS"]),
        ]:
            code, said = ask(*arguments)
            assert code == 0 and wanted in said, f"{arguments}: {said}"
        code, said = ask("statement-query", "SELECT nothing FROM trades")
        assert code != 0 and "nothing" in said, said


def http_takes_csv_json_and_arrow():
    with server() as running, running.connect() as connection:
        query(connection, TRADES)
        query(connection, TOTALS)
        body = b"szcode,price,turnover,ts\nA,1.5,10,2026-01-01T00:00:01\nB,2,20,2026-01-01T00:00:02\n"
        assert running.post("trades", body, "text/csv") == {"rows": 2, "repeated": False}
        body = b'{"szcode":"A","price":1,"turnover":5,"ts":"2026-01-01T00:00:03"}\n'
        for repeated in (False, True):
            answer = running.post("trades", body, "application/x-ndjson", **{"x-producer": "c", "x-sequence": "1"})
            assert answer == {"rows": 1, "repeated": repeated}, answer
        last = rows(1).set_column(3, "ts", pyarrow.array([1_767_225_700_000], pyarrow.timestamp("ms")))
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, last.schema) as writer:
            writer.write_table(last)
        running.post("trades", sink.getvalue().to_pybytes(), "application/vnd.apache.arrow.stream")
        wait_for(connection, "SELECT szcode, turnover FROM totals ORDER BY szcode", [("A", 15), ("B", 20)])
        try:
            running.post("trades", b"A,dear,1,2026-01-01T00:00:01\n", "text/csv")
            raise AssertionError("a bad row was taken")
        except urllib.error.HTTPError as error:
            said = json.load(error)["error"]
            assert error.code == 400 and "line 1" in said and "dear" in said, said
        with urllib.request.urlopen(f"http://{running.address}/health") as answer:
            assert answer.read() == b"ok\n"


class Subscriber(threading.Thread):
    """Follows the view `totals` over lost connections: its rows must come once each."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.rows, self.epoch, self.failure, self.done = address, [], None, None, False

    def run(self):
        while not self.done:
            try:
                self.follow()
            except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError) as error:
                # The server was killed, and the next one is not there yet.
                self.failure = error
                threading.Event().wait(0.02)

    def follow(self):
        with flightsql.connect(f"grpc://{self.address()}", autocommit=True) as connection, connection.cursor() as cursor:
            after = "" if self.epoch is None else f" AS OF EPOCH {self.epoch}"
            cursor.execute(f"SUBSCRIBE totals{after}")
            reader, coming = cursor.fetch_record_batch(), []
            while not self.done:
                batch = reader.read_next_batch().to_pylist()
                coming += batch
                if not batch and coming:
                    # An empty batch says that the epoch before it is whole.
                    self.epoch = coming[-1]["_epoch"]
                    self.rows += [(row["szcode"], row["window_end"], row["turnover"], row["trades"]) for row in coming]
                    coming = []


def a_killed_server_goes_on_where_it_was():
    with tempfile.TemporaryDirectory() as folder:
        running = Server(folder)
        subscriber = Subscriber(lambda: running.address)
        with running.connect() as connection:
            query(connection, TRADES)
            query(connection, TOTALS)
            query(connection, f"CREATE SINK kept WITH (connector = 'sqlite', path = '{folder}/kept.db')")
            query(connection, "INSERT INTO kept SELECT szcode, price FROM trades")
        subscriber.start()
        taken = 0
        for number in range(12):
            # A producer that does not know whether its rows arrived sends them again under the same number.
            table = rows(25, number * 25)
            if number % 3 == 2:
                killer = threading.Timer(0.01 * (number % 5), running.kill)
                killer.start()
            for _ in range(20):
                try:
                    client = flight.connect(f"grpc://{running.address}")
                    descriptor = flight.FlightDescriptor.for_path("trades")
                    writer, acknowledged = client.do_put(descriptor, table.schema)
                    metadata = json.dumps({"producer": "p", "sequence": number}).encode()
                    writer.write_with_metadata(table.to_batches()[0], metadata)
                    acknowledged.read()
                    writer.close()
                    taken += table.num_rows
                    break
                except (flight.FlightError, pyarrow.ArrowException, OSError):
                    running.process.wait(timeout=60)
                    running = Server(folder)
            if number % 3 == 2:
                killer.join()
                running.kill()
                running = Server(folder)
        with running.connect() as connection:
            wait_for(connection, "SELECT SUM(trades) FROM totals", [(200,)])
            states = {row[0]: row[1] for row in query(connection, "SHOW QUERIES")}
            assert states == {"kept": "running", "totals": "running"}, states
            whole = query(connection, "SELECT szcode, window_end, turnover, trades FROM totals ORDER BY 2, 1")
            for _ in range(600):
                if len(subscriber.rows) >= len(whole):
                    break
                threading.Event().wait(0.05)
            subscriber.done = True
            followed = sorted(subscriber.rows, key=lambda row: (row[1], row[0]))
            assert followed == whole, (followed, whole, subscriber.failure)
        import sqlite3

        for _ in range(600):
            with contextlib.closing(sqlite3.connect(f"{folder}/kept.db")) as database:
                kept = database.execute("SELECT COUNT(*), COUNT(DISTINCT price), MAX(price) FROM kept").fetchone()
            if kept == (taken, taken, taken - 1.0):
                break
            threading.Event().wait(0.05)
        assert kept == (taken, taken, taken - 1.0), kept
        running.stop()
        running = Server(folder)
        with running.connect() as connection:
            assert query(connection, "SELECT SUM(trades) FROM totals") == [(200,)]
        running.kill()


def hashed(secret):
    return subprocess.run([PROGRAM, "hash"], input=secret, capture_output=True, text=True, check=True).stdout.strip()


def users(folder):
    """A configuration with one administrator, whose password is `pa55word` and whose token `t0ken`."""
    path = pathlib.Path(folder) / "server.toml"
    path.write_text(
        f"[[users]]\nname = 'ann'\nrole = 'admin'\npassword = '{hashed('pa55word')}'\ntokens = ['{hashed('t0ken')}']\n"
    )
    return str(path)


def certificates(folder):
    """An authority, and what it has signed for a server on loopback and for a client, by OpenSSL."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *elliptic, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
    for name in ("server", "client"):
        pathlib.Path(folder, "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("req", *elliptic, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return lambda name: str(pathlib.Path(folder, name))


def tls_and_users_let_in_who_may():
    with tempfile.TemporaryDirectory() as folder:
        path = certificates(folder)
        arguments = ["--tls-cert", path("server.pem"), "--tls-key", path("server.key"), "--tls-client-ca", path("ca.pem")]
        with open(path("log"), "w") as log:
            environment = {**os.environ, "RUST_LOG": "trace"}
            running = Server(folder, *arguments, "--config", users(folder), stderr=log, env=environment)
        text = {name: pathlib.Path(path(name)).read_text() for name in ("ca.pem", "client.pem", "client.key")}
        option = "adbc.flight.sql.client_option."
        encrypted = {f"{option}tls_root_certs": text["ca.pem"]}
        known = {f"{option}mtls_cert_chain": text["client.pem"], f"{option}mtls_private_key": text["client.key"]}
        password = {"username": "ann", "password": "pa55word"}
        token = {"adbc.flight.sql.authorization_header": "Bearer t0ken"}

        def ask(**options):
            address = f"grpc+tls://{running.address}"
            with flightsql.connect(address, db_kwargs=options, autocommit=True) as connection:
                return query(connection, "SELECT 1")

        try:
            assert ask(**encrypted, **known, **password) == [(1,)]
            assert ask(**encrypted, **known, **token) == [(1,)]
            for wrong in (
                {**encrypted, **known, **password, "password": "wrong"},
                {**encrypted, **known},
                {**encrypted, **password},
                {**known, **password},
            ):
                try:
                    ask(**wrong)
                except adbc_driver_manager.Error:
                    continue
                raise AssertionError(f"let in with {sorted(wrong)}")
        finally:
            running.kill()
        said = pathlib.Path(path("log")).read_text()
        assert "listens" not in said and len(said) > 1000, "the log was not written"
        assert "pa55word" not in said and "t0ken" not in said, "the log tells secrets"


def java_connects():
    jar = os.environ.get("JDBC_JAR")
    if not jar:
        raise Skipped("no JDBC driver")
    source = str(pathlib.Path(__file__).with_name("Jdbc.java"))
    opened = "--add-opens=java.base/java.nio=ALL-UNNAMED"

    def connects(folder, arguments, authority):
        running = Server(str(pathlib.Path(folder, "data")), "--config", users(folder), *arguments)
        try:
            command = ["java", opened, "-cp", jar, source, running.address, "ann", "pa55word", "t0ken", *authority]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            assert ended.stdout.count("ok    jdbc") == 5, ended.stdout
        finally:
            running.kill()

    with tempfile.TemporaryDirectory() as folder:
        connects(folder, [], [])
    with tempfile.TemporaryDirectory() as folder:
        path = certificates(folder)
        encrypted = ["--tls-cert", path("server.pem"), "--tls-key", path("server.key")]
        connects(folder, encrypted, [path("ca.pem")])


def sqlalchemy_connects():
    python = os.environ.get("DIALECT_PYTHON")
    if not python:
        raise Skipped("no flightsql-dbapi")
    with server() as running:
        dialect = pathlib.Path(__file__).with_name("dialect.py")
        command = [python, str(dialect), *running.address.split(":")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stdout + ended.stderr


CHECKS = [
    adbc_asks_and_declares,
    adbc_binds_parameters,
    adbc_sees_metadata,
    adbc_ingests_a_million_rows,
    adbc_follows_an_endless_query_and_leaves_it,
    adbc_subscribes_to_a_view,
    pandas_and_polars_read,
    pyarrow_puts_batches_once,
    pyarrow_goes_on_with_a_select,
    arrow_command_line_asks,
    http_takes_csv_json_and_arrow,
    a_killed_server_goes_on_where_it_was,
    tls_and_users_let_in_who_may,
    sqlalchemy_connects,
    java_connects,
]


def main():
    failed, skipped = 0, 0
    wanted = sys.argv[2:]
    for check in CHECKS:
        if wanted and check.__name__ not in wanted:
            continue
        try:
            check()
            print(f"ok    {check.__name__}", flush=True)
        except Skipped as reason:
            skipped += 1
            print(f"skip  {check.__name__}: {reason}", flush=True)
        except Exception:  # Whatever a client raises is a failure of the check.
            failed += 1
            print(f"FAIL  {check.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
