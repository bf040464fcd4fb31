// JDBC (pgjdbc): its own protocol code; PreparedStatements become named statements called S_1, S_2, ...

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;

final class DriveJDBC {
    private static final String PLUS = "select ?::int + 1, pg_backend_pid()";
    private static final String TIMES = "select ?::int * 10, pg_backend_pid()";

    private final Checks checks;

    private DriveJDBC(Checks checks) {
        this.checks = checks;
    }

    public static void main(String[] args) throws Exception {
        var checks = new Checks();
        new DriveJDBC(checks).register();
        checks.run();
    }

    private void register() {
        checks.add("connect", this::connect);
        if (checks.tls()) {
            checks.add("tls_stranger", this::tlsStranger);
        }
        checks.add("prepared", this::prepared);
        checks.add("prepared_automatically", this::preparedAutomatically);
        checks.add("prepared_equal", () -> preparedByTwo(PLUS, PLUS));
        checks.add("prepared_different", () -> preparedByTwo(PLUS, TIMES));
        checks.add("prepared_closed", this::preparedClosed);
        checks.add("prepared_error", this::preparedError);
        checks.add("transaction", this::transaction);
        checks.add("error", this::error);
        checks.add("copy_in", this::copyIn);
        checks.add("copy_out", this::copyOut);
        checks.add("cancel", this::cancel);
        checks.add("notice", this::notice);
        checks.add("large", this::large);
        checks.add("parameters", this::parameters);
        checks.add("cursor", this::cursor);
        checks.add("pipeline", this::batch);
        checks.add("metadata", this::metadata);
    }

    private Connection session(String... options) throws SQLException {
        var p = new Properties();
        p.setProperty("user", checks.get("user"));
        p.setProperty("password", checks.get("password"));
        p.setProperty("loginTimeout", "60");
        p.setProperty("sslmode", checks.tls() ? "verify-full" : "disable");
        p.setProperty("sslrootcert", checks.get("ca"));
        for (int i = 0; i < options.length; i += 2) {
            p.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://" + checks.get("host") + ":" + checks.get("port") + "/" + checks.get("database"), p);
    }

    /** A connection whose statements have a name from their first execution on. */
    private Connection naming() throws SQLException {
        return session("prepareThreshold", "1");
    }

    private static void run(Connection c, String... texts) throws SQLException {
        try (Statement s = c.createStatement()) {
            for (String text : texts) {
                s.execute(text);
            }
        }
    }

    /** The first row of a query without values. */
    private static List<Object> row(Connection c, String text) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(text)) {
            return first(r);
        }
    }

    private static List<Object> first(ResultSet r) throws SQLException {
        r.next();
        var values = new ArrayList<Object>();
        for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) {
            values.add(r.getObject(i));
        }
        return values;
    }

    /** Executes a statement of one value and returns its first row. */
    private static List<Object> execute(PreparedStatement s, int value) throws SQLException {
        s.setInt(1, value);
        try (ResultSet r = s.executeQuery()) {
            return first(r);
        }
    }

    private static SQLException fails(String sqlstate, Checks.Body body) throws Exception {
        try {
            body.run();
        } catch (SQLException e) {
            Checks.same(e.getSQLState(), sqlstate);
            return e;
        }
        throw new IllegalStateException("no error " + sqlstate);
    }

    private void connect() throws Exception {
        try (Connection c = session()) {
            Checks.same(row(c, "select current_user::text, current_database()::text"), List.of("app", checks.get("database")));
            Checks.same(c.isValid(10), true);
        }
    }

    private void tlsStranger() throws Exception {
        fails("08006", () -> session("sslrootcert", checks.get("stranger")).close());
    }

    private void prepared() throws Exception {
        try (Connection c = naming(); Connection holder = session(); PreparedStatement s = c.prepareStatement(PLUS)) {
            holder.setAutoCommit(false);
            var pids = new ArrayList<Integer>();
            for (int n = 0; n < 6; n++) {
                var before = execute(s, n);
                Checks.same(before.get(0), n + 1);
                row(holder, "select 1"); // holds the server that was used last
                var after = execute(s, -n);
                Checks.same(after.get(0), 1 - n);
                holder.rollback();
                pids.add((Integer) before.get(1));
                pids.add((Integer) after.get(1));
            }
            checks.lands(pids);
            if (checks.get("mode").equals("direct")) {
                Checks.same(row(c, "select count(*) from pg_prepared_statements where statement like 'select $1::int + 1%'"), List.of(1L));
            }
        }
    }

    /** With the driver's own threshold, five executions; JDBC's begin and commit are named as well then. */
    private void preparedAutomatically() throws Exception {
        try (Connection c = session(); PreparedStatement s = c.prepareStatement(PLUS)) {
            c.setAutoCommit(false);
            for (int n = 0; n < 12; n++) {
                Checks.same(execute(s, n).get(0), n + 1);
                c.commit();
            }
        }
    }

    private void preparedByTwo(String mine, String theirs) throws Exception {
        try (Connection one = naming(); Connection other = naming(); Connection holder = session();
                PreparedStatement s = one.prepareStatement(mine); PreparedStatement o = other.prepareStatement(theirs)) {
            holder.setAutoCommit(false);
            for (int n = 0; n < 5; n++) {
                Object want = theirs.equals(PLUS) ? n + 1 : n * 10;
                Checks.same(execute(s, n).get(0), n + 1);
                Checks.same(execute(o, n).get(0), want);
                row(holder, "select 1");
                Checks.same(execute(o, n).get(0), want);
                Checks.same(execute(s, n).get(0), n + 1);
                holder.rollback();
            }
        }
    }

    /** More statements than the driver keeps: it closes the oldest, and parses it again when it is wanted. */
    private void preparedClosed() throws Exception {
        try (Connection c = session("prepareThreshold", "1", "preparedStatementCacheQueries", "2")) {
            for (int n = 0; n < 3; n++) {
                for (int k = 0; k < 4; k++) {
                    try (PreparedStatement s = c.prepareStatement("select ?::int + " + k)) {
                        Checks.same(execute(s, n).get(0), n + k);
                    }
                }
            }
        }
    }

    private void preparedError() throws Exception {
        try (Connection c = naming(); PreparedStatement divide = c.prepareStatement("select 1 / ?::int");
                PreparedStatement nothing = c.prepareStatement("select nothing, ?::int")) {
            for (int n = 0; n < 3; n++) {
                Checks.same(execute(divide, 1).get(0), 1);
                fails("22012", () -> execute(divide, 0));
                fails("42703", () -> execute(nothing, 1));
            }
        }
    }

    private void transaction() throws Exception {
        try (Connection c = session()) {
            run(c, "drop table if exists tx", "create table tx(a int)");
            c.setAutoCommit(false);
            run(c, "insert into tx values (1)");
            c.rollback();
            run(c, "insert into tx values (2)");
            var savepoint = c.setSavepoint();
            run(c, "insert into tx values (3)");
            fails("22012", () -> run(c, "select 1/0"));
            c.rollback(savepoint);
            run(c, "insert into tx values (4)");
            c.commit();
            Checks.same(row(c, "select string_agg(a::text, ',' order by a) from tx"), List.of("2,4"));
            c.rollback();
            c.setReadOnly(true);
            fails("25006", () -> run(c, "insert into tx values (5)"));
        }
    }

    private void error() throws Exception {
        try (Connection c = session()) {
            run(c, "drop table if exists err", "create table err(a int constraint err_key primary key)", "insert into err values (1)");
            var e = (PSQLException) fails("23505", () -> run(c, "insert into err values (1)"));
            Checks.same(e.getServerErrorMessage().getConstraint(), "err_key");
            fails("42601", () -> run(c, "selec 1"));
            Checks.same(row(c, "select 1"), List.of(1));
            c.setAutoCommit(false);
            fails("22012", () -> run(c, "select 1/0"));
            fails("25P02", () -> run(c, "select 1"));
            c.rollback();
            Checks.same(row(c, "select 1"), List.of(1));
        }
    }

    private static String lines(int from, int to) {
        return IntStream.rangeClosed(from, to).mapToObj(n -> n + "\trow " + n + "\n").collect(Collectors.joining());
    }

    private void copyIn() throws Exception {
        try (Connection c = session()) {
            run(c, "drop table if exists copied", "create table copied(a int, b text)");
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            Checks.same(copy.copyIn("copy copied from stdin", new StringReader(lines(0, 19999))), 20000L);
            fails("22P02", () -> copy.copyIn("copy copied from stdin", new StringReader("no number\tx\n")));
            Checks.same(row(c, "select count(*), sum(a) from copied"), List.of(20000L, 199990000L));
        }
    }

    private void copyOut() throws Exception {
        try (Connection c = session()) {
            var out = new StringWriter();
            c.unwrap(PGConnection.class).getCopyAPI().copyOut("copy (select g, 'row ' || g from generate_series(1, 20000) g) to stdout", out);
            Checks.same(out.toString(), lines(1, 20000));
        }
    }

    private void cancel() throws Exception {
        try (Connection c = session(); Connection observer = session(); Statement s = c.createStatement()) {
            var canceller = new Thread(() -> {
                try {
                    Checks.until(() -> row(observer, Checks.RUNNING).equals(List.of(1L)));
                    s.cancel();
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            });
            canceller.start();
            fails("57014", () -> s.execute(Checks.CANCEL_ME));
            canceller.join();
            Checks.same(row(c, "select 1"), List.of(1));
            s.setQueryTimeout(1);
            fails("57014", () -> s.execute(Checks.CANCEL_ME));
            Checks.same(row(c, "select 2"), List.of(2));
        }
    }

    private void notice() throws Exception {
        try (Connection c = session(); Statement s = c.createStatement()) {
            s.execute("do $$ begin raise notice 'look out'; end $$");
            Checks.same(s.getWarnings().getMessage(), "look out");
        }
    }

    private void large() throws Exception {
        try (Connection c = session(); Statement s = c.createStatement()) {
            long size = 0;
            try (ResultSet r = s.executeQuery(Checks.LARGE_ROWS)) {
                while (r.next()) {
                    size += r.getString(2).length();
                }
            }
            Checks.same(size, 5000000L);
            try (PreparedStatement p = c.prepareStatement("select repeat('y', ?)")) {
                Checks.same(((String) execute(p, 8 * Checks.MEGABYTE).get(0)).length(), 8 * Checks.MEGABYTE);
            }
            try (PreparedStatement p = c.prepareStatement("select length(?)")) {
                p.setString(1, "z".repeat(4 * Checks.MEGABYTE));
                try (ResultSet r = p.executeQuery()) {
                    Checks.same(first(r).get(0), 4 * Checks.MEGABYTE);
                }
            }
        }
    }

    /** Once in text, and in binary as far as the driver goes. */
    private void parameters() throws Exception {
        byte[] every = new byte[256];
        for (int i = 0; i < every.length; i++) {
            every[i] = (byte) i;
        }
        for (String threshold : List.of("0", "-1")) {
            try (Connection c = session("prepareThreshold", threshold);
                    PreparedStatement s = c.prepareStatement("select ?::text, ?::text, ?::bytea, ?::int8, ?::float8, ?::int[]")) {
                for (int round = 0; round < 2; round++) {
                    s.setNull(1, Types.VARCHAR);
                    s.setString(2, Checks.TEXT);
                    s.setBytes(3, every);
                    s.setLong(4, Long.MIN_VALUE);
                    s.setDouble(5, 0.1);
                    s.setArray(6, c.createArrayOf("int4", new Integer[] {1, null, 3}));
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        Checks.same(Arrays.asList(r.getString(1), r.getString(2), r.getLong(4), r.getDouble(5)),
                                Arrays.asList(null, Checks.TEXT, Long.MIN_VALUE, 0.1));
                        Checks.same(r.getBytes(3), every);
                        Checks.same(r.getArray(6).getArray(), new Integer[] {1, null, 3});
                    }
                }
            }
        }
    }

    /** A fetch size makes it a named portal that is executed in portions. */
    private void cursor() throws Exception {
        try (Connection c = naming(); PreparedStatement s = c.prepareStatement("select generate_series(1, ?)")) {
            c.setAutoCommit(false);
            s.setFetchSize(100);
            for (int round = 0; round < 2; round++) {
                s.setInt(1, 1000);
                int sum = 0;
                try (ResultSet r = s.executeQuery()) {
                    while (r.next()) {
                        sum += r.getInt(1);
                    }
                }
                Checks.same(sum, 500500);
                c.commit();
            }
        }
    }

    /** A batch is a pipeline. */
    private void batch() throws Exception {
        try (Connection c = session()) {
            run(c, "drop table if exists batch", "create table batch(a int)");
            try (PreparedStatement s = c.prepareStatement("insert into batch values (?)")) {
                for (int n = 0; n < 1000; n++) {
                    s.setInt(1, n);
                    s.addBatch();
                }
                Checks.same(s.executeBatch().length, 1000);
            }
            Checks.same(row(c, "select count(*), sum(a) from batch"), List.of(1000L, 499500L));
        }
    }

    private void metadata() throws Exception {
        try (Connection c = session()) {
            run(c, "drop table if exists meta", "create table meta(id int primary key, b text)");
            try (ResultSet r = c.getMetaData().getColumns(null, "public", "meta", null)) {
                Checks.same(first(r).get(3), "id");
            }
        }
    }
}
