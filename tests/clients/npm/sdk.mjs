// Uses Cal.com's SDK (@calcom/sdk) and a typed client (openapi-fetch). Only the base URL and the key differ from direct use.
import calcom from "@calcom/sdk";
import createClient from "openapi-fetch";
import { check, expect } from "./report.mjs";

const { KEYED, KEYLESS, KEY, PLATFORM_KEY, CLIENT_ID } = process.env;
const options = { baseUrl: `${KEYED}/`, httpRetries: { maxAmount: 0 } };

function understood(data, operation, credential) {
  expect(data?.operation === operation, `operation ${data?.operation}, not ${operation}`);
  expect(data.credential === credential, `credential ${data.credential}, not ${credential}`);
}

const user = new calcom.Cal("any-client", { accessToken: KEY }, options);
await check("@calcom/sdk: schedules with an access token", async () => {
  understood(await user.schedules.getSchedules(), "GET /v2/schedules", "api-key");
});
await check("@calcom/sdk: a new event type", async () => {
  const made = { title: "Intro", slug: "intro", description: "", length: 30, locations: [] };
  understood(await user.eventTypes.createEventType(made), "POST /v2/event-types", "api-key");
});

const backend = new calcom.Cal(CLIENT_ID, { clientSecret: PLATFORM_KEY }, options);
await check("@calcom/sdk: managed users with only x-cal-secret-key", async () => {
  const users = await backend.users.getManagedUsers({ limit: 5, offset: 0 });
  understood(users, "GET /v2/oauth-clients/{clientId}/users", "platform-client");
});

const keyless = new calcom.Cal("any-client", { accessToken: "placeholder" }, { ...options, baseUrl: `${KEYLESS}/` });
await check("@calcom/sdk: keyless, with the placeholder that it insists on", async () => {
  understood(await keyless.schedules.getSchedules(), "GET /v2/schedules", "api-key");
});

const typed = createClient({ baseUrl: KEYED, headers: { Authorization: `Bearer ${KEY}` } });
await check("openapi-fetch: a booking by its uid", async () => {
  const params = { path: { bookingUid: "a b" }, header: { "cal-api-version": "2024-08-13" } };
  const { data, error } = await typed.GET("/v2/bookings/{bookingUid}", { params });
  expect(!error, JSON.stringify(error));
  understood(data.data, "GET /v2/bookings/{bookingUid}", "api-key");
  expect(data.data.parameters.bookingUid === "a b", JSON.stringify(data.data.parameters));
});
