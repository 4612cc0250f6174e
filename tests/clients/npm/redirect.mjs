// Sends the requests of Cal.com's MCP server, which has no setting for the base URL, to calgate. Node loads it first.
import axios from "axios";

axios.interceptors.request.use((config) => {
  config.url = config.url.replace("https://api.cal.com", process.env.KEYED);
  return config;
});
