// Writes what it is told to its storage, sets alarms, and puts down in the file LEDGER when one comes. As an actor's own
// process, or with PORT as an app that serves many.

import { appendFileSync, readFileSync } from "node:fs";
import http from "node:http";

const { ACTOR_ID, ACTOR_SOCKET, ACTOR_API_SOCKET, ACTOR_TOKEN_FILE, LEDGER, PORT } = process.env;
const token = ACTOR_TOKEN_FILE ? readFileSync(ACTOR_TOKEN_FILE, "utf8").trim() : "";

// One short write with O_APPEND: lines of several processes never mix, and a killed process has written all of it or
// nothing.
function note(what, fields) {
  appendFileSync(LEDGER, JSON.stringify({ what, at: Date.now(), pid: process.pid, ...fields }) + "\n");
}

async function read(stream) {
  return Buffer.concat(await stream.toArray()).toString();
}

// Asks the API of the actor that a request is for.
function api(headers, method, path, body) {
  return new Promise((done, failed) => {
    const authorization = `Bearer ${headers["actor-token"] ?? token}`;
    const there = ACTOR_API_SOCKET ? { socketPath: ACTOR_API_SOCKET } : { host: "127.0.0.1", port: new URL(headers["actor-api"]).port };
    const request = http.request({ ...there, method, path, headers: { authorization } }, async (response) => {
      const text = await read(response);
      if (response.statusCode < 300) done(text);
      else failed(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
    });
    request.on("error", failed);
    request.end(body);
  });
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

// A runner that is killed cannot end what it has started; its successor does. Should there be none, this does.
let orphaned = 0;
const parent = process.ppid;
setInterval(() => {
  orphaned = process.ppid === parent ? 0 : orphaned + 1;
  if (orphaned > 60) process.exit(0);
}, 1000).unref();

if (PORT) {
  server.listen(Number(PORT), "127.0.0.1", () => note("serves", {}));
} else {
  note("start", { actor: ACTOR_ID });
  server.listen(ACTOR_SOCKET);
}
