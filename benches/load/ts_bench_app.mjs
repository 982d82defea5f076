// The routes of examples/bench_app.rs on the TypeScript runner, started with the same variables. MODULES names the
// directory with the installed packages.

import { pathToFileURL } from "node:url";

const env = process.env;
const load = (file) => import(pathToFileURL(`${env.MODULES}/${file}`));
const { Runner } = await load("@rivetkit/engine-runner/dist/mod.js");
const { default: pino } = await load("pino/pino.js");

/** The year 2100: none of these alarms ever fires. */
const FAR_AWAY = 4_102_444_800_000;
const KEYS = 1000;
const text = (status, body) => new Response(body, { status, headers: { "content-type": "text/plain; charset=utf-8" } });

const runner = new Runner({
	logger: pino({ level: env.GREENROOM_LOG ?? "info" }, pino.destination(2)),
	version: Number(env.GREENROOM_RUNNER_VERSION ?? 1),
	endpoint: env.GREENROOM_ENDPOINT,
	token: env.GREENROOM_TOKEN,
	namespace: env.GREENROOM_NAMESPACE ?? "default",
	totalSlots: Number(env.GREENROOM_SLOTS ?? 1000),
	runnerName: env.GREENROOM_RUNNER_NAME ?? "default",
	prepopulateActorNames: { bench: { metadata: {} } },
	onConnected: () => {},
	onDisconnected: () => {},
	onShutdown: () => {},
	noAutoShutdown: true,
	onActorStart: (id) => runner.restoreHibernatingRequests(id, []),
	onActorStop: async () => {},
	fetch: async (_runner, id, _gateway, _request, request) => {
		const url = new URL(request.url);
		const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
		if (url.pathname === "/ping") return text(200, "pong");
		if (url.pathname === "/echo") return new Response(await request.arrayBuffer());
		if (url.pathname === "/delay") {
			await new Promise((done) => setTimeout(done, number("ms", 0)));
			return text(200, "pong");
		}
		if (url.pathname.startsWith("/bytes/")) return new Response(Buffer.alloc(Number(url.pathname.slice(7)), "x"));
		if (url.pathname === "/events") {
			for (let n = 0; n < number("n", 1); n++) runner.setAlarm(id, FAR_AWAY + n);
			return new Response(null, { status: 200 });
		}
		if (url.pathname === "/sleep") {
			runner.sleepActor(id);
			return new Response(null, { status: 200 });
		}
		if (url.pathname === "/kv") return Response.json(await kv(id, url.searchParams.get("op") ?? "put", number));
		return text(404, "no such route");
	},
	websocket: async (_runner, _id, ws, gateway, request, _request, _path, _headers, hibernatable) => {
		ws.addEventListener("message", (event) => {
			ws.send(event.data);
			if (hibernatable) runner.sendHibernatableWebSocketMessageAck(gateway, request, event.rivetMessageIndex);
		});
	},
	hibernatableWebSocket: {
		canHibernate: (_id, _gateway, _request, request) => new URL(request.url).pathname === "/hws",
	},
});

async function kv(id, op, number) {
	const [count, atOnce, batch] = [number("n", 1000), number("c", 1), number("batch", 1)];
	const value = Buffer.alloc(number("size", 100), "v");
	const encoder = new TextEncoder();
	const keys = (n) =>
		Array.from({ length: batch }, (_, i) => encoder.encode(`bench/${String((n * batch + i) % KEYS).padStart(3, "0")}`));
	const operations = {
		put: (n) => runner.kvPut(id, keys(n).map((key) => [key, value])),
		get: (n) => runner.kvGet(id, keys(n)),
		delete: (n) => runner.kvDelete(id, keys(n)),
		list: () => runner.kvListPrefix(id, encoder.encode("bench/"), { limit: batch }),
	};
	const times = [];
	const begin = process.hrtime.bigint();
	let next = 0;
	async function worker() {
		while (next < count) {
			const begun = process.hrtime.bigint();
			await operations[op](next++);
			times.push(Number(process.hrtime.bigint() - begun) / 1000);
		}
	}
	await Promise.all(Array.from({ length: Math.max(atOnce, 1) }, worker));
	const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
	times.sort((a, b) => a - b);
	const at = (part) => Math.round(times[Math.min(Math.floor(times.length * part), times.length - 1)] ?? 0);
	return { op, n: count, c: atOnce, batch, size: value.length, seconds, ops_s: count / seconds, p50_us: at(0.5), p99_us: at(0.99) };
}

process.on("SIGTERM", () => process.exit(0));
await runner.start();
