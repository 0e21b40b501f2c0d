"""flightsql-dbapi and its SQLAlchemy dialect against a server: `dialect.py HOST PORT`."""

import sys

import flightsql.sqlalchemy  # Registers the dialect.
import sqlalchemy
from flightsql import FlightSQLClient, connect

HOST, PORT = sys.argv[1], int(sys.argv[2])


def main():
    connection = connect(FlightSQLClient(host=HOST, port=PORT, insecure=True))
    cursor = connection.cursor()
    cursor.execute("SELECT 1 AS one, 'x' AS s")
    assert cursor.fetchall() == [[1, "x"]]
    cursor.execute("CREATE STREAM dbapi (a VARCHAR, b DOUBLE) WITH (connector = 'push')")
    print("ok    dbapi asks and declares")

    engine = sqlalchemy.create_engine(f"datafusion+flightsql://{HOST}:{PORT}?insecure=True")
    with engine.connect() as alchemy:
        rows = alchemy.execute(sqlalchemy.text("SELECT 2 AS two")).fetchall()
        assert [tuple(row) for row in rows] == [(2,)], rows
    inspected = sqlalchemy.inspect(engine)
    assert "public" in inspected.get_schema_names()
    assert "dbapi" in inspected.get_table_names(schema="public")
    columns = {column["name"]: str(column["type"]) for column in inspected.get_columns("dbapi", schema="public")}
    assert set(columns) == {"a", "b"} and columns["a"] != "BLOB", columns
    print("ok    sqlalchemy asks and sees metadata")


if __name__ == "__main__":
    main()
