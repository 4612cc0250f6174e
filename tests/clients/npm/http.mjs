// Sends the requests of requests.json with HTTP clients of Node. Each client adds its usual headers.
import { readFileSync } from "node:fs";
import http from "node:http";
import axios from "axios";
import got from "got";
import { Agent, fetch as undiciFetch, request as undiciRequest } from "undici";
import { check, expect } from "./report.mjs";

const { KEYED, KEYLESS, KEY } = process.env;
const requests = JSON.parse(readFileSync(process.env.REQUESTS, "utf8").replaceAll("{key}", KEY));

const body = (json) => (json === undefined ? undefined : JSON.stringify(json));
const typed = (headers, json) => (json === undefined ? headers : { ...headers, "Content-Type": "application/json" });
// undici uses HTTP/2 only with TLS. So this client uses HTTP/1.1 with pipelining.
const agent = new Agent({ pipelining: 4 });

const clients = {
  async fetch(method, url, headers, json) {
    const response = await fetch(url, { method, headers: typed(headers, json), body: body(json) });
    return [response.status, await response.text()];
  },
  async "undici-fetch"(method, url, headers, json) {
    const options = { method, headers: typed(headers, json), body: body(json), dispatcher: agent };
    const response = await undiciFetch(url, options);
    return [response.status, await response.text()];
  },
  async undici(method, url, headers, json) {
    const response = await undiciRequest(url, { method, headers: typed(headers, json), body: body(json) });
    return [response.statusCode, await response.body.text()];
  },
  async axios(method, url, headers, json) {
    const options = { method, url, headers, data: json, validateStatus: () => true, responseType: "text" };
    const response = await axios.request({ ...options, transformResponse: (text) => text });
    return [response.status, response.data];
  },
  async got(method, url, headers, json) {
    const options = { method, headers, throwHttpErrors: false, retry: { limit: 0 } };
    const response = await got(url, json === undefined ? options : { ...options, json });
    return [response.statusCode, response.body];
  },
  async "node:http"(method, url, headers, json) {
    return new Promise((resolve, reject) => {
      const request = http.request(url, { method, headers: typed(headers, json) }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece) => (text += piece));
        response.on("end", () => resolve([response.statusCode, text]));
      });
      request.on("error", reject).end(body(json));
    });
  },
};

function compare(wanted, status, text) {
  expect(status === wanted.status, `status ${status}, not ${wanted.status}: ${text.slice(0, 200)}`);
  const json = JSON.parse(text);
  for (const [name, value] of Object.entries(wanted.data ?? {})) {
    expect(json.data[name] === value, `data.${name} is ${json.data[name]}, not ${value}`);
  }
  for (const [name, value] of Object.entries(wanted.upstream ?? {})) {
    const sent = json.data.headers?.[name] ?? null;
    expect(sent === value, `upstream ${name} is ${sent}, not ${value}`);
  }
  expect(json.data?.bodyLength >= (wanted.body_bytes ?? 0) || !wanted.body_bytes, `body of ${json.data?.bodyLength} bytes`);
  for (const words of wanted.says ?? []) expect(text.includes(words), `no "${words}" in ${text.slice(0, 200)}`);
  if (wanted.error) expect(json.status === "error" && json.error?.message, `no error.message in ${text.slice(0, 200)}`);
}

for (const [name, send] of Object.entries(clients)) {
  for (const wanted of requests) {
    if (wanted.unless?.includes(name)) continue;
    await check(`${name}: ${wanted.name}`, async () => {
      const base = wanted.gateway === "keyless" ? KEYLESS : KEYED;
      const [status, text] = await send(wanted.method ?? "GET", base + wanted.path, wanted.headers, wanted.json);
      compare(wanted, status, text);
    });
  }
}
await agent.close();
