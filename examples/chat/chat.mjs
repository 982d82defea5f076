// A chat room: every client that connects to the same room hears what the others say. Node 20 or later, nothing else.
//
// The room sleeps whenever nobody speaks, with all its clients connected; the next frame starts it again. So nothing is
// remembered in this process: who a client is stands in its socket's tags and attachment.
//
//   ws://127.0.0.1:6420/gateway/ACTOR_ID/?name=ada
//
// A frame `/who` lists the names, `/sleep` puts the room to sleep, `/bye` leaves; everything else is said to all.
import { readFileSync } from "node:fs";
import http from "node:http";

const { ACTOR_SOCKET, ACTOR_API_SOCKET, ACTOR_TOKEN_FILE } = process.env;
const authorization = "Bearer " + readFileSync(ACTOR_TOKEN_FILE, "utf8").trim();

async function read(stream) {
  return Buffer.concat(await stream.toArray());
}

// A call of the actor API.
function api(method, path, body, type = "text/plain") {
  return new Promise((done, failed) => {
    const headers = { authorization, "content-type": type };
    const request = http.request({ socketPath: ACTOR_API_SOCKET, method, path, headers }, async (response) => {
      const text = await read(response);
      if (response.statusCode < 300) done(text);
      else failed(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
    });
    request.on("error", failed);
    request.end(body);
  });
}

const say = (text) => api("POST", "/v1/ws:broadcast?tag=in", text);

async function sockets() {
  return JSON.parse(await api("GET", "/v1/ws?tag=in")).sockets;
}

function nameOf(socket) {
  return new URLSearchParams(socket.path.split("?")[1]).get("name") ?? "somebody";
}

// What the daemon tells: one call per event. What is returned is the answer to the client's frame.
const on = {
  async open({ headers }) {
    const name = nameOf({ path: decodeURIComponent(headers["actor-ws-path"]) });
    if (name.length > 40) return { status: 400, body: "a name has at most 40 characters" };
    await say(`* ${name} comes in`);
    return { headers: { "actor-ws-tags": "in" }, body: `* welcome, ${name}` };
  },

  async message({ headers, body }) {
    const [id, seq, text] = [headers["actor-ws-id"], headers["actor-ws-seq"], body.toString()];
    if (text === "/bye") return { headers: { "actor-ws-close": "1000 bye" }, body: "* bye" };
    if (text === "/sleep") {
      await api("POST", "/v1/sleep");
      return { body: "* the room goes to sleep; say something" };
    }
    const all = await sockets();
    if (text === "/who") return { body: "* here are " + all.map(nameOf).join(", ") };
    const self = all.find((socket) => socket.id === id);
    await say(`${self ? nameOf(self) : "somebody"}: ${text}`);
    // The number tells the client that this frame was taken, and in which place.
    return { body: `#${seq}` };
  },

  async close() {
    await say("* somebody has left");
    return {};
  },
};

http
  .createServer(async (request, response) => {
    const body = await read(request);
    const handler = request.url === "/_actor" ? on[request.headers["actor-event"]] : undefined;
    try {
      if (handler) {
        const answer = await handler({ headers: request.headers, body });
        response.writeHead(answer.status ?? 200, { "content-type": "text/plain", ...answer.headers });
        response.end(answer.body ?? "");
      } else if (request.url === "/" && request.method === "GET") {
        response.end(`${(await sockets()).length} here\n`);
      } else {
        response.writeHead(404).end("not found\n");
      }
    } catch (error) {
      // The frame counts as not taken, and is told again.
      console.error(error.message);
      response.writeHead(503).end(error.message + "\n");
    }
  })
  .listen(ACTOR_SOCKET);

// Nothing is left to be saved: every answer waited for what it needed.
process.on("SIGTERM", () => process.exit(0));
