// The test actor as a child process of ours: a web server on ACTOR_SOCKET that keeps its count through ACTOR_API.
// WebSockets come as real upgrades (`websocket = "proxy"`) and are echoed.

import { readFileSync } from "node:fs";
import http from "node:http";
import { WebSocketServer } from "ws";
import { answer, hook, stopping } from "./behaviour.mjs";

const env = process.env;
const self = {
	id: env.ACTOR_ID,
	name: env.ACTOR_NAME,
	key: env.ACTOR_KEY ?? null,
	generation: Number(env.ACTOR_GENERATION),
};
const identity = { actor: self.id, generation: self.generation, name: self.name, key: self.key };
hook("start", { ...identity, reason: env.ACTOR_START_REASON });

const token = readFileSync(env.ACTOR_TOKEN_FILE, "utf8").trim();
const b64 = (bytes) => bytes.toString("base64url");
const from64 = (text) => Buffer.from(text, "base64url");

/// One call of the actor API; a refusal throws the API's own message.
async function api(method, path, body) {
	const response = await fetch(env.ACTOR_API + path, {
		method,
		headers: { authorization: `Bearer ${token}`, ...(body ? { "content-type": "application/json" } : {}) },
		body: body && JSON.stringify(body),
	});
	const text = await response.text();
	if (response.status === 404) return null;
	if (!response.ok) {
		hook("api_error", { ...identity, method, path, status: response.status, text });
		throw new Error(`${response.status} ${text}`);
	}
	return text ? JSON.parse(text) : {};
}

const actor = {
	...self,
	input: undefined,
	kv: {
		get: async (keys) => {
			const { entries } = await api("POST", "/v1/kv:batch", { get: keys.map(b64) });
			const found = new Map(entries.map(({ key, value }) => [key, from64(value)]));
			return keys.map((key) => found.get(b64(key)) ?? null);
		},
		put: (entries) => api("POST", "/v1/kv:batch", { put: entries.map(([key, value]) => [b64(key), b64(value)]) }),
		list: async (prefix) => {
			const { entries } = await api("GET", `/v1/kv?enc=b64&prefix=${b64(prefix)}`);
			return entries.map(({ key, value }) => [from64(key), from64(value)]);
		},
		delete: (keys) => api("POST", "/v1/kv:batch", { delete: keys.map(b64) }),
		deleteRange: (start, end) => api("POST", "/v1/kv:batch", { delete_range: [b64(start), b64(end)] }),
	},
	alarm: (at) => (at === null ? api("DELETE", "/v1/alarms/ring") : api("PUT", "/v1/alarms/ring", { at })),
	sleep: () => api("POST", "/v1/sleep").catch(() => {}),
	destroy: () => api("POST", "/v1/destroy").catch(() => {}),
};

async function input() {
	const response = await fetch(`${env.ACTOR_API}/v1/input`, { headers: { authorization: `Bearer ${token}` } });
	return response.status === 200 ? Buffer.from(await response.arrayBuffer()) : undefined;
}

const server = http.createServer(async (request, response) => {
	const parts = [];
	for await (const part of request) parts.push(part);
	const body = Buffer.concat(parts);
	if (request.url === "/_actor") return event(request.headers, response);
	try {
		if (request.url.startsWith("/who")) actor.input = await input();
		const reply = await answer({ method: request.method, path: request.url, headers: request.headers, body }, actor);
		response.writeHead(reply.status, { ...reply.headers, "content-length": reply.body.length }).end(reply.body);
	} catch (error) {
		response.writeHead(500, { "content-type": "text/plain" }).end(String(error.stack ?? error));
	}
});

function event(headers, response) {
	const events = {
		start: () => hook("start_event", identity),
		alarm: () => hook("alarm", { ...identity, alarm: headers["actor-alarm"], attempt: Number(headers["actor-attempt"]) }),
		stop: () => response.on("finish", stop),
	};
	const told = events[headers["actor-event"]];
	told?.();
	response.writeHead(told ? 204 : 404).end();
}

const sockets = new WebSocketServer({ server, maxPayload: 64 << 20 });
sockets.on("connection", (socket, request) => {
	hook("ws_open", { ...identity, path: request.url });
	socket.on("message", (data, binary) => socket.send(data, { binary }));
	socket.on("close", (code, reason) => hook("ws_close", { ...identity, path: request.url, code, reason: String(reason) }));
});

let asked = false;
async function stop() {
	if (asked) return;
	asked = true;
	await stopping(actor, identity);
	process.exit(0);
}
process.on("SIGTERM", stop);

server.listen(env.ACTOR_SOCKET, () => console.log("listening"));
