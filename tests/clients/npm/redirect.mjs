// Loaded before Cal.com's MCP server, which has no setting for the base URL: sends its requests to calgate.
import axios from "axios";

axios.interceptors.request.use((config) => {
  config.url = config.url.replace("https://api.cal.com", process.env.KEYED);
  return config;
});
