// A counter that outlives its process: an actor in Node, without dependencies.
//
//   GET /        counts one up and answers with the count
//   POST /reset  back to 0
//   GET /sleep   asks to sleep; the next request wakes the actor, in a new process, with the same count
//   /ws          a WebSocket: each text message counts one up and comes back with the count

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";

const token = readFileSync(process.env.ACTOR_TOKEN_FILE, "utf8").trim();

// Calls the actor API. A status of 400 or more is an error, but 404 means that there is nothing.
function api(method, path, body) {
  return new Promise((resolve, reject) => {
    const options = {
      socketPath: process.env.ACTOR_API_SOCKET,
      method,
      path,
      headers: { host: "actor-api", authorization: `Bearer ${token}`, "content-length": Buffer.byteLength(body ?? "") },
    };
    const request = http.request(options, async (response) => {
      let text = "";
      for await (const piece of response.setEncoding("utf8")) text += piece;
      if (response.statusCode === 404) resolve(undefined);
      else if (response.statusCode >= 400) reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
      else resolve(text);
    });
    request.on("error", reject);
    request.end(body);
  });
}

// The count, as stored. Changes run one after another: each is on disk at the gateway before its answer leaves.
let count = Number((await api("GET", "/v1/kv/count")) ?? 0);
let last = Promise.resolve();
function change(compute) {
  const next = last.then(async () => {
    const value = compute(count);
    await api("PUT", "/v1/kv/count", String(value));
    return (count = value);
  });
  last = next.catch(() => {});
  return next;
}

async function answer(request) {
  const path = request.url.split("?")[0];
  if (request.method === "GET" && path === "/") return [200, await change((count) => count + 1)];
  if (request.method === "POST" && path === "/reset") return [200, await change(() => 0)];
  if (request.method === "GET" && path === "/sleep") return [202, await api("POST", "/v1/sleep").then(() => "going to sleep")];
  return [404, "there is /, /reset (POST), /sleep and /ws"];
}

const server = http.createServer((request, response) => {
  request.resume();
  answer(request)
    .catch((error) => (console.error(error), [503, error.message]))
    .then(([status, text]) => response.writeHead(status, { "content-type": "text/plain" }).end(`${text}\n`));
});

// The server side of WebSockets (RFC 6455), as far as an actor needs it: whole frames of up to 1 MiB.
const TEXT = 1, CLOSE = 8, PING = 9, PONG = 10;
const sockets = new Set();
server.on("upgrade", (request, socket, head) => {
  if (request.url.split("?")[0] !== "/ws") return socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = createHash("sha1").update(key).digest("base64");
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n" +
      `sec-websocket-accept: ${accept}\r\n\r\n`,
  );
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
  socket.on("error", () => socket.destroy());
  let buffer = head;
  const read = (piece) => {
    buffer = Buffer.concat([buffer, piece]);
    for (let frame; (frame = takeFrame(buffer)); ) {
      buffer = frame.rest;
      if (frame.error) return close(socket, frame.error);
      handle(socket, frame.opcode, frame.payload);
    }
  };
  socket.on("data", read);
  read(Buffer.alloc(0));
});

function handle(socket, opcode, payload) {
  if (opcode === CLOSE) return close(socket, payload.length < 2 ? 1000 : payload.readUInt16BE(0));
  if (opcode === PING) return send(socket, PONG, payload);
  if (opcode !== TEXT) return;
  change((count) => count + 1).then(
    (count) => send(socket, TEXT, Buffer.from(`${count} ${payload}`)),
    (error) => (console.error(error), close(socket, 1011)),
  );
}

function takeFrame(buffer) {
  if (buffer.length < 2) return;
  let [length, start] = [buffer[1] & 127, 2];
  if (length === 126) {
    if (buffer.length < 4) return;
    [length, start] = [buffer.readUInt16BE(2), 4];
  } else if (length === 127) {
    if (buffer.length < 10) return;
    [length, start] = [Number(buffer.readBigUInt64BE(2)), 10];
  }
  if (length > 1024 * 1024) return { error: 1009, rest: buffer };
  // Frames of clients are whole here (FIN) and always masked.
  if (!(buffer[0] & 128) || !(buffer[1] & 128)) return { error: 1002, rest: buffer };
  if (buffer.length < start + 4 + length) return;
  const mask = buffer.subarray(start, start + 4);
  const payload = Buffer.from(buffer.subarray(start + 4, start + 4 + length)).map((byte, i) => byte ^ mask[i % 4]);
  return { opcode: buffer[0] & 15, payload: Buffer.from(payload), rest: buffer.subarray(start + 4 + length) };
}

function send(socket, opcode, payload) {
  const head = Buffer.alloc(payload.length < 126 ? 2 : payload.length < 65536 ? 4 : 10);
  head[0] = 128 | opcode;
  if (head.length === 2) head[1] = payload.length;
  else if (head.length === 4) (head[1] = 126), head.writeUInt16BE(payload.length, 2);
  else (head[1] = 127), head.writeBigUInt64BE(BigInt(payload.length), 2);
  if (socket.writable) socket.write(Buffer.concat([head, payload]));
}

function close(socket, code) {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  send(socket, CLOSE, payload);
  socket.end();
}

// Asked to stop: finish what is being answered, let go of the sockets.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
  for (const socket of sockets) close(socket, 1001);
  setTimeout(() => process.exit(0), 2000).unref();
});

// Ready as soon as the socket accepts.
server.listen(process.env.ACTOR_SOCKET);
