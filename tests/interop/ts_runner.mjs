// The real TypeScript runner, hosting the test actor. Settings come from the environment (ENDPOINT, NAMESPACE,
// RUNNER_NAME, TOKEN, SLOTS, VERSION, HOOKS_FILE); every hook becomes one JSON line on stdout and in HOOKS_FILE.

import { Runner } from "@rivetkit/engine-runner";
import pino from "pino";
import { answer, hook, stopping } from "./actors/behaviour.mjs";

const env = process.env;
const actors = new Map();
// What an application has to remember of sockets that outlive their actor, by actor and request.
const lasting = new Map();

function say(name, fields = {}) {
	console.log(JSON.stringify({ hook: name, ...fields }));
	hook(name, fields);
}

const runner = new Runner({
	logger: pino({ level: env.LOG ?? "info" }, pino.destination(2)),
	version: Number(env.VERSION ?? 1),
	endpoint: env.ENDPOINT,
	token: env.TOKEN,
	namespace: env.NAMESPACE ?? "default",
	totalSlots: Number(env.SLOTS ?? 100),
	runnerName: env.RUNNER_NAME ?? "default",
	prepopulateActorNames: { counter: { metadata: { kind: "test" } } },
	metadata: { language: "typescript" },
	onConnected: () => say("connected", { runner_id: runner.runnerId }),
	onDisconnected: (code, reason) => say("disconnected", { code, reason: String(reason) }),
	onShutdown: () => say("shutdown"),
	noAutoShutdown: true,

	onActorStart: async (id, generation, config) => {
		say("start", { actor: id, generation, name: config.name, key: config.key });
		actors.set(id, describe(id, generation, config));
		await runner.restoreHibernatingRequests(id, [...(lasting.get(id)?.values() ?? [])]);
	},
	onActorStop: async (id, generation) => {
		await stopping(actors.get(id) ?? {}, { actor: id, generation });
		actors.delete(id);
	},
	fetch: async (_runner, id, _gateway, _request, request) => {
		const url = new URL(request.url);
		const { status, headers, body } = await answer(
			{
				method: request.method,
				path: url.pathname + url.search,
				headers: Object.fromEntries(request.headers),
				body: Buffer.from(await request.arrayBuffer()),
			},
			actors.get(id),
		);
		return new Response(body, { status, headers: { ...headers, "content-length": String(body.length) } });
	},
	websocket: async (_runner, id, ws, gateway, request, _request, path, headers, hibernatable, restored) => {
		if (!restored) say("ws_open", { actor: id, path });
		const key = Buffer.from(request).toString("hex");
		const sockets = lasting.get(id) ?? new Map();
		if (hibernatable && !restored) {
			const indexes = { serverMessageIndex: 0, clientMessageIndex: 0 };
			sockets.set(key, { gatewayId: gateway, requestId: request, path, headers, ...indexes });
			lasting.set(id, sockets);
		}
		ws.addEventListener("message", (event) => {
			ws.send(event.data);
			if (!hibernatable) return;
			sockets.get(key).serverMessageIndex = event.rivetMessageIndex;
			runner.sendHibernatableWebSocketMessageAck(gateway, request, event.rivetMessageIndex);
		});
		ws.addEventListener("close", (event) => {
			sockets.delete(key);
			say("ws_close", { actor: id, path, code: event.code, reason: event.reason });
		});
	},
	hibernatableWebSocket: {
		canHibernate: (_id, _gateway, _request, request) => new URL(request.url).pathname.startsWith("/hws"),
	},
});

function describe(id, generation, config) {
	const bytes = (entries) => entries.map(([key, value]) => [Buffer.from(key), Buffer.from(value)]);
	return {
		id,
		generation,
		name: config.name,
		key: config.key,
		input: config.input && Buffer.from(config.input),
		kv: {
			get: async (keys) => (await runner.kvGet(id, keys)).map((value) => value && Buffer.from(value)),
			put: (entries) => runner.kvPut(id, entries),
			list: async (prefix) => bytes(await runner.kvListPrefix(id, prefix)),
			delete: (keys) => runner.kvDelete(id, keys),
			deleteRange: (start, end) => runner.kvDeleteRange(id, start, end),
		},
		alarm: (at) => runner.setAlarm(id, at, generation),
		sleep: () => runner.sleepActor(id, generation),
		destroy: () => runner.destroyActor(id, generation),
	};
}

let leaving = false;
async function stop(signal) {
	say("signal", { signal });
	if (leaving) process.exit(1);
	leaving = true;
	await runner.shutdown(false);
	process.exit(0);
}
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
process.on("unhandledRejection", (error) => {
	say("unhandled_rejection", { error: String(error?.stack ?? error) });
	process.exit(70);
});

await runner.start();
