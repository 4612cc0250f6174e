import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

/** The HTTP clients of the JDK: the newer one offers to change to HTTP/2 (Upgrade: h2c) with its first request. */
public final class Clients {
    private static final String BASE = System.getenv("KEYED");
    private static final String KEY = "Bearer " + System.getenv("KEY");
    private static final String BOOKING = "{\"eventTypeId\": 1, \"attendee\": {\"name\": \"Zoë\"}}";

    private interface Work {
        int run() throws Exception;
    }

    public static void main(String[] arguments) {
        HttpClient offering = HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build();
        HttpClient plain = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        check("java.net.http, which offers h2c: GET", () -> send(offering, get()));
        check("java.net.http, which offers h2c: POST", () -> send(offering, post(false)));
        check("java.net.http: GET over HTTP/1.1", () -> send(plain, get()));
        check("java.net.http: POST with Expect: 100-continue", () -> send(plain, post(true)));
        check("java.net.http, which offers h2c: POST with Expect: 100-continue", () -> send(offering, post(true)));
        check("java.net.HttpURLConnection: POST in chunks", Clients::chunked);
    }

    private static HttpRequest get() {
        return HttpRequest.newBuilder(URI.create(BASE + "/v2/me")).header("Authorization", KEY).build();
    }

    private static HttpRequest post(boolean expect) {
        return HttpRequest.newBuilder(URI.create(BASE + "/v2/bookings"))
                .header("Authorization", KEY)
                .header("Content-Type", "application/json")
                .expectContinue(expect)
                .POST(BodyPublishers.ofString(BOOKING))
                .build();
    }

    private static int send(HttpClient client, HttpRequest request) throws Exception {
        return client.send(request, BodyHandlers.ofString()).statusCode();
    }

    private static int chunked() throws Exception {
        HttpURLConnection connection = (HttpURLConnection) URI.create(BASE + "/v2/bookings").toURL().openConnection();
        connection.setRequestProperty("Authorization", KEY);
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setDoOutput(true);
        connection.setChunkedStreamingMode(8);
        try (OutputStream out = connection.getOutputStream()) {
            out.write(BOOKING.getBytes("UTF-8"));
        }
        return connection.getResponseCode();
    }

    private static void check(String name, Work work) {
        String why;
        try {
            int status = work.run();
            why = status == 200 ? null : "status " + status;
        } catch (Exception exception) {
            why = exception.toString().replace('"', '\'').replace('\\', '/').replace('\n', ' ');
        }
        String text = why == null ? "null" : '"' + why + '"';
        System.out.println("{\"check\": \"" + name + "\", \"why\": " + text + "}");
    }
}
