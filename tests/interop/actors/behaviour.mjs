// What the test actor does, whoever hosts it: the TypeScript runner (`ts_runner.mjs`) and a child process of ours
// (`counter.mjs`) both serve exactly this, so one list of scenarios fits every pairing.
//
// `actor` is { id, name, key, generation, input, kv, alarm(at), sleep(), destroy() }; all keys and values of `kv` are
// Buffers. An actor has one alarm here: `alarm` sets it anew, in milliseconds since the epoch, or takes it away with null.

import { appendFileSync } from "node:fs";
import { setTimeout as setTimer } from "node:timers";
import { setTimeout as delay } from "node:timers/promises";

const COUNT = Buffer.from("count");

/// Appends one JSON line to the file named by HOOKS_FILE. One short write with O_APPEND, so lines of several processes
/// never mix; the test counts start hooks per generation here.
export function hook(name, fields) {
	const file = process.env.HOOKS_FILE;
	if (file) appendFileSync(file, `${JSON.stringify({ hook: name, pid: process.pid, at: Date.now(), ...fields })}\n`);
}

/// Answers one HTTP request with { status, headers, body }.
export async function answer(request, actor) {
	const url = new URL(request.path, "http://actor");
	switch (url.pathname) {
		case "/":
			return text(await increment(actor.kv));
		case "/count":
			return text(await read(actor.kv));
		case "/who":
			return json({ id: actor.id, name: actor.name, key: actor.key, generation: actor.generation, pid: process.pid, input: actor.input?.toString("base64") ?? null });
		case "/echo":
			return json({ method: request.method, path: request.path, headers: request.headers, body: request.body.toString("base64") }, { "x-from-actor": "yes" }, 207);
		case "/bytes":
			return { status: 200, headers: { "content-type": "application/octet-stream" }, body: Buffer.alloc(Number(url.searchParams.get("n")), "x") };
		case "/kv":
			return json(await exercise(actor.kv));
		case "/slow": {
			// Counts only after the wait, so the caller can tell that the work really went on during it.
			const steps = Number(url.searchParams.get("steps") ?? 1);
			const ms = Number(url.searchParams.get("ms"));
			for (let step = 0; step < steps; step += 1) {
				await delay(ms);
				await actor.kv.put([[Buffer.from("step"), Buffer.from(String(step))]]);
			}
			return text(await increment(actor.kv));
		}
		case "/alarm": {
			const ms = url.searchParams.get("in_ms");
			const at = ms === null ? null : Date.now() + Number(ms);
			await actor.alarm(at);
			return text(at);
		}
		case "/sleep":
			actor.stopTakes = Number(url.searchParams.get("stop_takes") ?? 0);
			later(url, () => actor.sleep());
			return text("going to sleep");
		case "/destroy":
			later(url, () => actor.destroy());
			return text("going away");
		case "/crash":
			later(url, () => process.exit(3));
			return text("going down");
		default:
			return { ...text("no such route"), status: 404 };
	}
}

/// A little after the answer, or when asked to: a request that is still open when its actor stops is sent again.
const later = (url, act) => setTimer(act, Number(url.searchParams.get("after") ?? 50));

/// What both hosts do on a stop: the hook, as slow as the last `/sleep` asked for.
export async function stopping(actor, identity) {
	hook("stopping", identity);
	if (actor.stopTakes) await delay(actor.stopTakes);
	hook("stop", identity);
}

/// The count is read and written under one chain per actor process: concurrent requests must not lose an increment.
let last = Promise.resolve();
function increment(kv) {
	const next = last.then(async () => {
		const count = (await read(kv)) + 1;
		await kv.put([[COUNT, Buffer.from(String(count))]]);
		return count;
	});
	last = next.catch(() => {});
	return next;
}

async function read(kv) {
	const [value] = await kv.get([COUNT]);
	return value ? Number(value.toString()) : 0;
}

/// Every key-value operation once, on keys below `t/`; returns what it saw for the test to judge.
async function exercise(kv) {
	const key = (name) => Buffer.from(`t/${name}`);
	const seen = {};
	await kv.put([["b", "2"], ["a", "1"], ["c", "3"], ["d", "4"]].map(([name, value]) => [key(name), Buffer.from(value)]));
	seen.get = (await kv.get([key("c"), key("missing"), key("a")])).map((value) => value?.toString() ?? null);
	seen.list = names(await kv.list(key("")));
	await kv.delete([key("b"), key("missing")]);
	seen.after_delete = names(await kv.list(key("")));
	await kv.deleteRange(key("c"), key("d"));
	seen.after_delete_range = names(await kv.list(key("")));
	const big = Buffer.alloc(131072, 7);
	await kv.put([[key("big"), big]]);
	seen.largest_value = big.equals((await kv.get([key("big")]))[0]);
	const binary = Buffer.from([0, 255, 128, 10]);
	await kv.put([[Buffer.concat([key(""), binary]), binary]]);
	seen.binary = binary.equals((await kv.get([Buffer.concat([key(""), binary])]))[0]);
	seen.too_long = await kv.put([[key("long"), Buffer.alloc(131073)]]).then(() => "accepted", (error) => String(error.message ?? error));
	await kv.deleteRange(key(""), Buffer.from("t0"));
	seen.after_cleanup = names(await kv.list(key("")));
	return seen;
}

const names = (entries) => entries.map(([name]) => name.toString());
const text = (value) => ({ status: 200, headers: { "content-type": "text/plain" }, body: Buffer.from(String(value)) });
const json = (value, headers = {}, status = 200) => ({ status, headers: { "content-type": "application/json", ...headers }, body: Buffer.from(JSON.stringify(value)) });
