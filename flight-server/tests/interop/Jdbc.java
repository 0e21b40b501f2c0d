import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * The Arrow Flight SQL JDBC driver against a server: {@code Jdbc HOST:PORT USER PASSWORD TOKEN [AUTHORITY.pem]}. With an
 * authority, who has signed the server's certificate, the connections are encrypted.
 */
public final class Jdbc {
    private Jdbc() {}

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:arrow-flight-sql://" + arguments[0];
        Properties byPassword = encryption(arguments);
        byPassword.put("user", arguments[1]);
        byPassword.put("password", arguments[2]);
        try (Connection connection = DriverManager.getConnection(url, byPassword)) {
            declares(connection);
            tells(connection);
            binds(connection);
        }
        Properties byToken = encryption(arguments);
        byToken.put("token", arguments[3]);
        try (Connection connection = DriverManager.getConnection(url, byToken)) {
            streams(connection);
        }
        byPassword.put("password", "wrong");
        try (Connection connection = DriverManager.getConnection(url, byPassword)) {
            throw new AssertionError("a wrong password was taken");
        } catch (SQLException expected) {
            System.out.println("ok    jdbc refuses a wrong password");
        }
    }

    private static Properties encryption(String[] arguments) {
        Properties properties = new Properties();
        properties.put("useEncryption", String.valueOf(arguments.length > 4));
        if (arguments.length > 4) {
            properties.put("tlsRootCerts", arguments[4]);
        }
        return properties;
    }

    private static void declares(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(
                    "CREATE STREAM j (k VARCHAR, v BIGINT, p DECIMAL(10, 2), ts TIMESTAMP(3), WATERMARK FOR ts AS ts)"
                            + " WITH (connector = 'push')");
            statement.executeUpdate("CREATE VIEW jv AS SELECT k, v FROM j WHERE v > 1");
            try {
                statement.execute("SELECT nothing FROM j");
                throw new AssertionError("a wrong statement was taken");
            } catch (SQLException expected) {
                check(expected.getMessage().contains("nothing"), expected.getMessage());
            }
        }
        System.out.println("ok    jdbc declares");
    }

    private static void tells(Connection connection) throws SQLException {
        DatabaseMetaData metadata = connection.getMetaData();
        check("Millstream".equals(metadata.getDatabaseProductName()), metadata.getDatabaseProductName());
        check(!metadata.supportsTransactions(), "transactions");
        List<String> tables = column(metadata.getTables(null, null, null, null), "TABLE_NAME");
        check(tables.contains("j") && tables.contains("jv"), tables.toString());
        List<String> columns = column(metadata.getColumns(null, null, "j", null), "COLUMN_NAME");
        check(columns.equals(List.of("k", "v", "p", "ts")), columns.toString());
        List<String> types = column(metadata.getColumns(null, null, "j", null), "TYPE_NAME");
        check(types.equals(List.of("VARCHAR", "BIGINT", "DECIMAL", "TIMESTAMP")), types.toString());
        check(column(metadata.getCatalogs(), "TABLE_CAT").equals(List.of("millstream")), "catalogs");
        check(column(metadata.getSchemas(), "TABLE_SCHEM").equals(List.of("public")), "schemas");
        check(column(metadata.getPrimaryKeys(null, null, "j"), "COLUMN_NAME").isEmpty(), "keys");
        check(column(metadata.getImportedKeys(null, null, "j"), "FKCOLUMN_NAME").isEmpty(), "keys");
        check(column(metadata.getTableTypes(), "TABLE_TYPE").contains("STREAM"), "types");
        check("\"".equals(metadata.getIdentifierQuoteString()), metadata.getIdentifierQuoteString());
        System.out.println("ok    jdbc sees metadata");
    }

    private static void binds(Connection connection) throws SQLException {
        String text = "SELECT x, CAST(x AS DECIMAL(10, 2)) AS d FROM (VALUES (1), (2), (3)) AS t(x) WHERE x > ? ORDER BY x";
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int least = 1; least <= 2; least++) {
                statement.setLong(1, least);
                try (ResultSet rows = statement.executeQuery()) {
                    int count = 0;
                    while (rows.next()) {
                        count++;
                        check(rows.getLong("x") == least + count, "a row");
                        check(rows.getBigDecimal("d").intValue() == least + count, "a decimal");
                    }
                    check(count == 3 - least, count + " rows");
                }
            }
        }
        System.out.println("ok    jdbc binds parameters");
    }

    /** Rows of a query that has no end, as they come. */
    private static void streams(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE STREAM endless (szcode VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT,"
                    + " Price DOUBLE, WATERMARK FOR eventTime AS eventTime)"
                    + " WITH (connector = 'generate', kind = 'transaction', rate = '1000')");
            try (ResultSet rows = statement.executeQuery("SELECT szcode, Price FROM endless")) {
                for (int row = 0; row < 500; row++) {
                    check(rows.next() && rows.getString(1) != null, "row " + row);
                }
                statement.cancel();
            }
        }
        System.out.println("ok    jdbc follows an endless query");
    }

    private static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                values.add(rows.getString(name));
            }
        }
        return values;
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
