// All counters of a name in one server, told apart by the headers of each request. Node 20 or later, nothing else.
//
// With process = "per-name" the daemon starts it and says where to listen; as an upstream it is started by hand:
//
//   HOST=127.0.0.1 PORT=9000 node counters.mjs
import http from "node:http";

const { ACTOR_SOCKET, HOST, PORT } = process.env;

// What goes on for an actor, so that two requests never count at once. Gone when the actor stops.
const turns = new Map();

// A call of the actor API in the name of the actor that the request is for.
async function api(request, method, path, body) {
  const headers = { authorization: `Bearer ${request.headers["actor-token"]}` };
  const response = await fetch(request.headers["actor-api"] + path, { method, body, headers });
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.text();
}

async function count(request) {
  const count = Number((await api(request, "GET", "/v1/kv/count")) ?? 0) + 1;
  await api(request, "PUT", "/v1/kv/count", `${count}`);
  return `${count}\n`;
}

http
  .createServer(async (request, response) => {
    // The generation too: a word that comes late must not reach the actor's next life.
    const actor = `${request.headers["actor-id"]} ${request.headers["actor-generation"]}`;
    try {
      if (request.url === "/_actor") {
        if (request.headers["actor-event"] === "stop") turns.delete(actor);
        const known = ["start", "stop"].includes(request.headers["actor-event"]);
        response.writeHead(known ? 204 : 501).end();
      } else {
        const turn = (turns.get(actor) ?? Promise.resolve()).then(() => count(request));
        turns.set(actor, turn.catch(() => {}));
        response.end(await turn);
      }
    } catch (error) {
      console.error(error.message);
      response.writeHead(503).end(error.message + "\n");
    }
  })
  .listen(ACTOR_SOCKET ?? { host: HOST, port: PORT });

process.on("SIGTERM", () => process.exit(0));
