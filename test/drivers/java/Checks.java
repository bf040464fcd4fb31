// What Java programs share: the target, the checks' order, and their report.

import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.regex.Pattern;

final class Checks {
    static final String CANCEL_ME = "select pg_sleep(30)";
    static final String RUNNING = "select count(*) from pg_stat_activity where datname = current_database() and query = '" + CANCEL_ME
            + "' and state = 'active'";
    static final String LARGE_ROWS = "select g, repeat('x', 5000) from generate_series(1, 1000) g";
    static final int MEGABYTE = 1 << 20;
    static final String TEXT = "na\u00efve \u2603 \ud83d\udc0d ' \" \\ %";

    /** A check; what it throws is its failure. */
    interface Body {
        void run() throws Exception;
    }

    private final Map<String, String> target;
    private final Map<String, Body> all = new LinkedHashMap<>();

    /** Reads the target from stdin: a flat JSON object, as the test describes it. */
    Checks() throws Exception {
        target = new LinkedHashMap<>();
        String json = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        var field = Pattern.compile("\"(\\w+)\":(?:\"([^\"\\\\]*)\"|(\\w+))").matcher(json);
        while (field.find()) {
            target.put(field.group(1), field.group(2) != null ? field.group(2) : field.group(3));
        }
    }

    /** A field of the target: name, mode (direct, session or transaction), host, port, user, password, database, tls, ca, stranger. */
    String get(String field) {
        return Objects.requireNonNull(target.get(field), field);
    }

    boolean tls() {
        return get("tls").equals("true");
    }

    void add(String name, Body body) {
        all.put(name, body);
    }

    static void same(Object got, Object want) {
        if (!Objects.deepEquals(got, want)) {
            throw new IllegalStateException("got " + brief(got) + ", want " + brief(want));
        }
    }

    private static String brief(Object value) {
        String s = String.valueOf(value);
        return s.substring(0, Math.min(200, s.length()));
    }

    /** Judges the servers that executed a statement: several where transactions are pooled, one elsewhere. */
    void lands(List<Integer> pids) {
        int servers = new HashSet<>(pids).size();
        if (servers > 1 != get("mode").equals("transaction")) {
            throw new IllegalStateException("executed on " + servers + " server(s)");
        }
    }

    /** Polls for what has no event to wait for. */
    static void until(Callable<Boolean> condition) throws Exception {
        for (long end = System.nanoTime() + 60_000_000_000L; !condition.call(); Thread.sleep(20)) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException("not within a minute");
            }
        }
    }

    /** Makes all checks and prints one line of JSON for each. */
    void run() {
        all.forEach((name, body) -> {
            String detail = "";
            try {
                body.run();
            } catch (Exception e) {
                detail = brief(e) + where(e);
            }
            System.out.printf("{\"check\": \"%s\", \"ok\": %b, \"detail\": \"%s\"}%n", name, detail.isEmpty(), escaped(detail));
        });
    }

    private static String where(Exception e) {
        for (StackTraceElement frame : e.getStackTrace()) {
            if (frame.getClassName().startsWith("Drive")) {
                return " in line " + frame.getLineNumber();
            }
        }
        return "";
    }

    private static String escaped(String s) {
        return s.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ");
    }
}
