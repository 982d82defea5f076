// An actor that takes its sockets as events: the daemon keeps them open while it sleeps. Every event becomes one line
// in HOOKS_FILE; a frame is answered with `gen:text`.

import { readFileSync } from "node:fs";
import http from "node:http";
import { hook } from "./behaviour.mjs";

const env = process.env;
const identity = { actor: env.ACTOR_ID, generation: Number(env.ACTOR_GENERATION) };
hook("start", identity);

const token = readFileSync(env.ACTOR_TOKEN_FILE, "utf8").trim();

async function api(method, path, body) {
	const headers = { authorization: `Bearer ${token}`, ...(body ? { "content-type": "text/plain" } : {}) };
	const response = await fetch(env.ACTOR_API + path, { method, headers, body });
	const text = await response.text();
	if (!response.ok) hook("api_error", { ...identity, path, status: response.status, text });
}

const events = {
	open: (headers) => hook("open", { ...identity, ws: headers["actor-ws-id"], path: headers["actor-ws-path"] }),
	message: (headers, body) => {
		const seq = Number(headers["actor-ws-seq"]);
		hook("message", { ...identity, ws: headers["actor-ws-id"], seq, attempt: Number(headers["actor-attempt"]), body });
		return `${identity.generation}:${body}`;
	},
	close: (headers) => {
		const code = Number(headers["actor-ws-code"]);
		hook("close", { ...identity, ws: headers["actor-ws-id"], code, reason: headers["actor-ws-reason"] });
	},
};

const requests = {
	"/who": () => JSON.stringify(identity),
	"/say": async (url) => {
		await api("POST", "/v1/ws:broadcast", url.searchParams.get("text"));
		return "said";
	},
	// Asked for after the answer, so that the request does not keep the actor awake.
	"/sleep": () => (setTimeout(() => api("POST", "/v1/sleep"), 20), "going to sleep"),
	"/destroy": () => (setTimeout(() => api("POST", "/v1/destroy"), 20), "going"),
	"/crash": () => (setTimeout(() => process.exit(3), 20), "crashing"),
};

const server = http.createServer(async (request, response) => {
	const parts = [];
	for await (const part of request) parts.push(part);
	const body = Buffer.concat(parts).toString();
	const url = new URL(request.url, "http://actor");
	const found = url.pathname === "/_actor" ? events[request.headers["actor-event"]] : requests[url.pathname];
	if (!found) return response.writeHead(404).end();
	const text = url.pathname === "/_actor" ? found(request.headers, body) : await found(url);
	response.writeHead(200, { "content-type": "text/plain" }).end(text ?? "");
});

process.on("SIGTERM", () => {
	hook("stop", identity);
	process.exit(0);
});
server.listen(env.ACTOR_SOCKET);
