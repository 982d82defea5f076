// Writes what it is told to its storage, sets alarms, and puts down in the file LEDGER when one comes. As an actor's own
// process, or with PORT as an app that serves many.

import { readFileSync } from "node:fs";
import http from "node:http";
import { call, note, read } from "../actor.mjs";

const { ACTOR_ID, ACTOR_SOCKET, ACTOR_API_SOCKET, ACTOR_TOKEN_FILE, PORT } = process.env;
const token = ACTOR_TOKEN_FILE ? readFileSync(ACTOR_TOKEN_FILE, "utf8").trim() : "";

// Asks the API of the actor that a request is for.
function api(headers, method, path, body) {
  const there = ACTOR_API_SOCKET ? { socketPath: ACTOR_API_SOCKET } : { host: "127.0.0.1", port: new URL(headers["actor-api"]).port };
  return call(there, headers["actor-token"] ?? token, method, path, body);
}

const server = http.createServer(async (request, response) => {
  const headers = request.headers;
  try {
    const body = await read(request);
    const [path, argument] = request.url.split("?");
    if (path === "/_actor") {
      if (headers["actor-event"] !== "alarm") return response.writeHead(501).end();
      note("alarm", { actor: headers["actor-id"], name: headers["actor-alarm"], attempt: Number(headers["actor-attempt"]) });
      response.writeHead(200).end();
    } else if (path === "/put") {
      await api(headers, "PUT", `/v1/kv/${argument}`, body);
      response.end("ok");
    } else if (path === "/alarm") {
      const [name, at] = argument.split("@");
      await api(headers, "PUT", `/v1/alarms/${name}`, JSON.stringify({ at: Number(at) }));
      response.end("ok");
    } else if (path === "/sleep") {
      // Asked for after the answer, so that the request does not keep the actor awake.
      setTimeout(() => api(headers, "POST", "/v1/sleep").catch(() => {}), 10);
      response.end("ok");
    } else {
      response.end("here");
    }
  } catch (error) {
    response.writeHead(503).end(error.message);
  }
});

process.on("SIGTERM", () => process.exit(0));

if (PORT) {
  server.listen(Number(PORT), "127.0.0.1", () => note("serves", {}));
} else {
  note("start", { actor: ACTOR_ID });
  server.listen(ACTOR_SOCKET);
}
