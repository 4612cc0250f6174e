// Calls Cal.com's MCP server (@calcom/cal-mcp) as an MCP client does.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { check, expect } from "./report.mjs";

const { KEYED, KEY } = process.env;

async function call(key, name, params) {
  const args = ["--import", "./redirect.mjs", "node_modules/@calcom/cal-mcp/dist/index.js", "--all-tools"];
  const transport = new StdioClientTransport({ command: "node", args, env: { ...process.env, KEYED, CAL_API_KEY: key } });
  const client = new Client({ name: "calgate-tests", version: "1" });
  await client.connect(transport);
  try {
    const answer = await client.callTool({ name, arguments: { params } });
    expect(!answer.isError, answer.content[0].text.slice(0, 200));
    return JSON.parse(answer.content[0].text).data;
  } finally {
    await client.close();
  }
}

for (const [how, key] of [["with a scheme", `Bearer ${KEY}`], ["without a scheme", KEY]]) {
  await check(`@calcom/cal-mcp: getEventTypes, key ${how}`, async () => {
    const data = await call(key, "getEventTypes", { "cal-api-version": "2024-06-14" });
    expect(data.operation === "GET /v2/event-types" && data.version === "2024-06-14", JSON.stringify(data));
  });
}
