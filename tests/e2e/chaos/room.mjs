// A room that puts down everything it is told before it answers, so that others can check it: a line of JSON in the
// file LEDGER per event, and every fifth message of a client in the actor's storage.

import { appendFileSync, readFileSync } from "node:fs";
import http from "node:http";

const { ACTOR_ID, ACTOR_GENERATION, ACTOR_SOCKET, ACTOR_API_SOCKET, ACTOR_TOKEN_FILE, LEDGER } = process.env;
const authorization = "Bearer " + readFileSync(ACTOR_TOKEN_FILE, "utf8").trim();

// One short write with O_APPEND: lines of several processes never mix, and a killed process has written all of it or
// nothing.
function note(what, fields) {
  const life = { actor: ACTOR_ID, generation: Number(ACTOR_GENERATION), pid: process.pid };
  appendFileSync(LEDGER, JSON.stringify({ what, at: Date.now(), ...life, ...fields }) + "\n");
}

async function read(stream) {
  return Buffer.concat(await stream.toArray()).toString();
}

function api(method, path, body) {
  return new Promise((done, failed) => {
    const options = { socketPath: ACTOR_API_SOCKET, method, path, headers: { authorization } };
    const request = http.request(options, async (response) => {
      const text = await read(response);
      if (response.statusCode < 300) done(text);
      else failed(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
    });
    request.on("error", failed);
    request.end(body);
  });
}

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

// A runner that is killed cannot end what it has started; its successor does. Should there be none, this does.
let orphaned = 0;
const parent = process.ppid;
setInterval(() => {
  orphaned = process.ppid === parent ? 0 : orphaned + 1;
  if (orphaned > 60) process.exit(0);
}, 1000).unref();

note("start", {});
server.listen(ACTOR_SOCKET);
