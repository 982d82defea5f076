// A room that puts down everything it is told before it answers, so that others can check it: a line of JSON in the
// file LEDGER per event, and every fifth message of a client in the actor's storage.

import { readFileSync } from "node:fs";
import http from "node:http";
import { call, note as put, read } from "../actor.mjs";

const { ACTOR_ID, ACTOR_GENERATION, ACTOR_SOCKET, ACTOR_API_SOCKET, ACTOR_TOKEN_FILE } = process.env;
const token = readFileSync(ACTOR_TOKEN_FILE, "utf8").trim();
const api = (method, path, body) => call({ socketPath: ACTOR_API_SOCKET }, token, method, path, body);
const note = (what, fields) => put(what, { actor: ACTOR_ID, generation: Number(ACTOR_GENERATION), ...fields });

const on = {
  open(headers) {
    note("open", { ws: headers["actor-ws-id"], attempt: Number(headers["actor-attempt"]), path: headers["actor-ws-path"] });
    return "hello";
  },

  async message(headers, body) {
    const [ws, seq, attempt] = [headers["actor-ws-id"], Number(headers["actor-ws-seq"]), Number(headers["actor-attempt"])];
    note("message", { ws, seq, attempt, body });
    if (seq % 5 === 0) await api("PUT", `/v1/kv/${encodeURIComponent(body.split(" ")[0])}`, String(seq));
    return `#${seq} ${body}`;
  },

  close(headers) {
    const [code, reason] = [Number(headers["actor-ws-code"]), headers["actor-ws-reason"] ?? ""];
    note("close", { ws: headers["actor-ws-id"], attempt: Number(headers["actor-attempt"]), code, reason });
    return "";
  },
};

const server = http.createServer(async (request, response) => {
  const body = await read(request);
  const event = request.url === "/_actor" ? request.headers["actor-event"] : undefined;
  try {
    if (event !== undefined) {
      const handler = on[event];
      if (!handler) return response.writeHead(501).end();
      const answer = await handler(request.headers, body);
      response.writeHead(200, { "content-type": "text/plain" }).end(answer);
    } else if (request.url === "/sleep") {
      // Asked for after the answer, so that the request does not keep the actor awake.
      setTimeout(() => api("POST", "/v1/sleep").catch(() => {}), 20);
      response.end("going to sleep\n");
    } else {
      response.end(`${ACTOR_GENERATION}\n`);
    }
  } catch (error) {
    // The frame counts as not taken, and is told again.
    response.writeHead(503).end(error.message);
  }
});

process.on("SIGTERM", () => {
  note("stop", {});
  process.exit(0);
});

note("start", {});
server.listen(ACTOR_SOCKET);
