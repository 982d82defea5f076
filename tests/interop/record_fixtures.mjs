// Records what the engine answers on its public API, one JSON file per exchange, into fixtures/engine-2.3.19/.
//
//     node record_fixtures.mjs http://127.0.0.1:7420
//
// against an engine with an empty data folder. Starts the TypeScript runner itself. Ids and times in the files are those
// of the recording: the files document shapes, no test compares them byte for byte.

import { spawn } from "node:child_process";
import http from "node:http";
import { mkdirSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const base = process.argv[2];
const folder = new URL("./fixtures/engine-2.3.19/", import.meta.url);
mkdirSync(folder, { recursive: true });

/// One exchange; with `name` it becomes a file. `note` explains the situation to the reader of the file.
function call(method, path, { body, raw, headers = {}, name, note, timeout = 60_000 } = {}) {
	const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body));
	const sent = { ...(body !== undefined ? { "content-type": "application/json" } : {}), ...headers };
	const started = Date.now();
	return new Promise((resolve, reject) => {
		const request = http.request(new URL(path, base), { method, headers: sent, timeout }, (response) => {
			const parts = [];
			response.on("data", (part) => parts.push(part));
			response.on("end", () => {
				const text = Buffer.concat(parts).toString();
				let answer = text;
				try {
					answer = JSON.parse(text);
				} catch {}
				if (name) {
					const exchange = {
						note,
						request: { method, path, headers: sent, body: body ?? raw ?? null },
						status: response.statusCode,
						headers: response.headers,
						body: answer,
						took_ms: Date.now() - started,
					};
					const file = typeof name === "function" ? name(answer) : name;
					writeFileSync(new URL(`${file}.json`, folder), `${JSON.stringify(exchange, null, 2)}\n`);
				}
				console.log(response.statusCode, method, path, text.slice(0, 150), `${Date.now() - started} ms`);
				resolve({ status: response.statusCode, body: answer });
			});
		});
		request.on("error", reject);
		request.on("timeout", () => request.destroy(new Error(`no answer to ${path}`)));
		request.end(payload);
	});
}

async function until(what, check) {
	for (let deadline = Date.now() + 30_000; Date.now() < deadline; await delay(50)) {
		const value = await check();
		if (value) return value;
	}
	throw new Error(`never: ${what}`);
}

const create = (key, more = {}) => ({ name: "counter", key, runner_name_selector: "pool", crash_policy: "sleep", ...more });
const ns = "namespace=default";

await call("GET", "/health", { name: "health" });
await call("GET", "/metadata", { name: "metadata" });
await call("GET", "/datacenters?" + ns, { name: "datacenters" });
await call("GET", "/", { name: "root" });
await call("GET", "/nowhere", { name: "error_unknown_route" });
await call("PATCH", "/actors?" + ns, { name: "error_wrong_method" });
await call("GET", "/health/ws", { name: "health_ws_plain_get" });
await call("GET", "/runners/connect?protocol_version=7&namespace=default&runner_key=k", { name: "runners_connect_plain_get" });

await call("GET", "/namespaces", { name: "namespaces_list" });
await call("GET", "/namespaces?name=default", { name: "namespaces_by_name" });
await call("GET", "/namespaces?name=absent", { name: "namespaces_by_name_absent" });
await call("POST", "/namespaces", { body: { name: "second", display_name: "Second" }, name: "namespaces_create" });
await call("POST", "/namespaces", { body: { name: "second", display_name: "Second" }, name: "error_namespace_not_unique" });
await call("POST", "/namespaces", { body: { name: "Bad Name", display_name: "x" }, name: "error_namespace_bad_name" });
await call("POST", "/namespaces", { body: { name: "third" }, name: "error_namespace_missing_field" });

await call("GET", "/runners?" + ns, { name: "runners_empty" });
await call("GET", "/runners/names?" + ns, { name: "runners_names_empty" });
await call("GET", "/runner-configs?" + ns, { name: "runner_configs_empty" });
await call("GET", "/actors/names?" + ns, { name: "actors_names_empty" });
await call("POST", "/actors?" + ns, { body: create("early"), name: "error_no_runner_config" });

const runner = spawn(process.execPath, [new URL("./ts_runner.mjs", import.meta.url).pathname], {
	env: { ...process.env, ENDPOINT: base, RUNNER_NAME: "pool" },
	stdio: ["ignore", "pipe", "ignore"],
});
await new Promise((resolve) => runner.stdout.on("data", (line) => String(line).includes('"connected"') && resolve()));
const connected = Date.now();
await until("runner listed", async () => (await call("GET", "/runners?" + ns)).body.runners.length === 1);
console.log("runner listed after", Date.now() - connected, "ms");
await until("pool config", async () => (await call("GET", "/runner-configs?" + ns)).body.runner_configs?.pool);
console.log("config there after", Date.now() - connected, "ms");

await call("GET", "/runners?" + ns, { name: "runners_list" });
await call("GET", "/runners?name=pool&" + ns, { name: "runners_by_name" });
await call("GET", "/runners/names?" + ns, { name: "runners_names" });
await call("GET", "/runner-configs?" + ns, { name: "runner_configs_list", note: "created by the first connect of a runner" });
await call("GET", "/runner-configs?runner_name=pool&" + ns, { name: "runner_configs_by_name" });
await call("PUT", "/runner-configs/other?" + ns, { body: { datacenters: { default: { normal: {} } } }, name: "runner_configs_put" });
await call("PUT", "/runner-configs/other?" + ns, { body: { datacenters: { default: { normal: {} } } }, name: "runner_configs_put_again" });
await call("GET", "/runner-configs?" + ns, { name: "runner_configs_list_after_put" });
await call("PUT", "/runner-configs/other?" + ns, { body: { datacenters: { nowhere: { normal: {} } } }, name: "error_runner_config_unknown_datacenter" });
await call("DELETE", "/runner-configs/other?" + ns, { name: "runner_configs_delete" });
await call("DELETE", "/runner-configs/other?" + ns, { name: "runner_configs_delete_again" });

const made = await call("POST", "/actors?" + ns, { body: create("one", { input: Buffer.from("hello").toString("base64") }), name: "actors_create" });
const id = made.body.actor.actor_id;
await until("connectable", async () => (await call("GET", `/actors?actor_ids=${id}&${ns}`)).body.actors[0].connectable_ts);
// The engine answers a duplicate in two ways, by chance: keep one of each.
const duplicates = new Set();
await until("both answers to a duplicate", async () => {
	const name = (body) => (body.code === "duplicate_key" ? "error_duplicate_key" : "error_duplicate_key_race");
	const note = "which of error_duplicate_key and error_duplicate_key_race comes is chance";
	const { body } = await call("POST", "/actors?" + ns, { body: create("one"), name, note });
	return duplicates.add(body.code).size === 2;
});
await call("POST", "/actors?" + ns, { body: create(undefined), name: "actors_create_without_key" });
await call("POST", "/actors?" + ns, { body: create(""), name: "error_empty_key" });
await call("POST", "/actors?" + ns, { body: create("k".repeat(1025)), name: "error_key_too_large" });
await call("PUT", "/actors?" + ns, { body: create("two"), name: "actors_get_or_create_created" });
await call("PUT", "/actors?" + ns, { body: create("two"), name: "actors_get_or_create_existing" });
await call("PUT", "/actors?" + ns, { body: create(undefined), name: "error_get_or_create_without_key" });

await call("GET", `/actors?actor_ids=${id}&${ns}`, { name: "actors_by_ids" });
await call("GET", `/actors?actor_id=${id}&${ns}`, { name: "actors_by_id" });
await call("GET", `/actors?actor_id=${id}`, { name: "error_missing_namespace_parameter" });
await call("GET", `/actors?name=counter&key=one&${ns}`, { name: "actors_by_key" });
await call("GET", `/actors?name=counter&key=absent&${ns}`, { name: "actors_by_key_absent" });
await call("GET", `/actors?name=counter&${ns}`, { name: "actors_by_name" });
await call("GET", `/actors?name=counter&limit=1&${ns}`, { name: "actors_by_name_limit" });
await call("GET", `/actors?${ns}`, { name: "error_list_without_name" });
await call("GET", `/actors?name=counter&actor_ids=${id}&${ns}`, { name: "error_list_name_and_ids" });
await call("GET", `/actors?name=counter&colour=red&${ns}`, { name: "error_unknown_query_field" });
await call("GET", `/actors?actor_id=garbage&${ns}`, { name: "error_bad_actor_id_in_query" });
await call("GET", `/actors/names?${ns}`, { name: "actors_names" });
await call("GET", `/actors/${id}?${ns}`, { name: "error_get_single_actor_route", note: "no such route: list by actor_ids instead" });

await call("GET", `/gateway/${id}/`, { name: "gateway_get" });
await call("POST", `/gateway/${id}/echo?a=b%20c`, { raw: "body", headers: { "content-type": "text/plain", "x-test": "1", cookie: "a=b" }, name: "gateway_post_echo" });
await call("GET", `/gateway/${id}@token/echo`, { name: "gateway_with_token" });
await call("OPTIONS", `/gateway/${id}/echo`, { headers: { origin: "http://site.test", "access-control-request-method": "POST", "access-control-request-headers": "x-a, x-b" }, name: "gateway_options" });
await call("GET", `/gateway/${id}/`, { headers: { origin: "http://site.test" }, name: "gateway_get_with_origin" });
await call("GET", `/gateway/counter/count?rvt-namespace=default&rvt-method=get&rvt-key=one`, { name: "gateway_query_get" });
await call("GET", `/gateway/counter/count?rvt-namespace=default&rvt-method=get&rvt-key=absent`, { name: "error_gateway_query_get_absent" });
await call("GET", `/gateway/counter/count?rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=pool&rvt-key=a,b`, { name: "gateway_query_get_or_create" });
await call("GET", `/gateway/counter/count?rvt-namespace=default&rvt-method=getOrCreate&rvt-key=a`, { name: "error_gateway_query_missing_pool" });
await call("GET", `/gateway/counter/count?rvt-namespace=default&rvt-method=sing`, { name: "error_gateway_query_invalid" });
await call("GET", `/gateway/counter/count?rvt-namespace=absent&rvt-method=get&rvt-key=one`, { name: "error_gateway_query_unknown_namespace" });
await call("GET", "/request/echo", { headers: { "x-rivet-target": "actor", "x-rivet-actor": id }, name: "gateway_by_header" });
await call("GET", "/elsewhere", { headers: { "x-rivet-target": "actor", "x-rivet-actor": id }, name: "error_gateway_by_header_other_path" });
await call("GET", `/gateway/${id}//x`, { name: "error_gateway_double_slash" });
await call("GET", `/gateway/${id}@/x`, { name: "error_gateway_empty_token" });
await call("GET", "/gateway/garbage/", { name: "error_gateway_unparsable_id" });
const absent = `${id.slice(0, 5)}z${id.slice(6)}`;
await call("GET", `/gateway/${absent}/`, { name: "error_gateway_unknown_actor" });

await call("GET", `/actors/${id}/kv/keys/${encodeURIComponent(Buffer.from("count").toString("base64"))}?${ns}`, { name: "actors_kv_get" });
await call("GET", `/actors/${id}/kv/keys/${encodeURIComponent(Buffer.from("absent").toString("base64"))}?${ns}`, { name: "error_kv_key_not_found" });
await call("GET", `/actors/${id}/kv/keys/%21%21?${ns}`, { name: "error_kv_bad_base64" });
await call("GET", `/actors/${absent}/kv/keys/Y291bnQ=?${ns}`, { name: "error_kv_unknown_actor" });

await call("POST", "/actors?" + ns, { raw: "{", headers: { "content-type": "application/json" }, name: "error_body_not_json" });
await call("POST", "/actors?" + ns, { raw: JSON.stringify(create("x")), name: "error_missing_content_type" });
await call("POST", "/actors?" + ns, { body: { name: "counter" }, name: "error_missing_fields" });
await call("POST", "/actors?" + ns, { body: { ...create("x"), colour: "red" }, name: "error_unknown_body_field" });
await call("POST", "/actors?" + ns, { body: create("x", { crash_policy: "dance" }), name: "error_bad_crash_policy" });
await call("POST", "/actors?namespace=absent", { body: create("x"), name: "error_unknown_namespace_create" });
await call("GET", "/actors?namespace=absent&name=counter", { name: "error_unknown_namespace_list" });
await call("GET", "/runners?namespace=absent", { name: "error_unknown_namespace_runners" });
await call("DELETE", `/actors/${absent}?${ns}`, { name: "error_delete_unknown_actor" });
await call("DELETE", `/actors/garbage?${ns}`, { name: "error_delete_unparsable_id" });
await call("DELETE", `/actors/${id}?namespace=second`, { name: "error_delete_in_wrong_namespace" });
await call("POST", `/actors/${id}/sleep?${ns}`, { body: {}, name: "actors_sleep_route" });

await call("GET", `/gateway/${id}/sleep`, { name: "gateway_sleep" });
await until("asleep", async () => (await call("GET", `/actors?actor_ids=${id}&${ns}`)).body.actors[0].sleep_ts);
await call("GET", `/actors?actor_ids=${id}&${ns}`, { name: "actors_by_ids_sleeping" });
await call("GET", `/actors/${id}/kv/keys/Y291bnQ%3D?${ns}`, { name: "actors_kv_get_sleeping" });
await call("GET", `/gateway/${id}/count`, { name: "gateway_wakes" });
await call("GET", `/actors?actor_ids=${id}&${ns}`, { name: "actors_by_ids_woken" });
const crash = await call("POST", "/actors?" + ns, { body: create("crash", { crash_policy: "restart" }) });
await until("ready", async () => (await call("GET", `/actors?actor_ids=${crash.body.actor.actor_id}&${ns}`)).body.actors[0].connectable_ts);

await call("DELETE", `/actors/${id}?${ns}`, { name: "actors_delete" });
await call("DELETE", `/actors/${id}?${ns}`, { name: "actors_delete_again" });
await call("GET", `/actors?actor_ids=${id}&${ns}`, { name: "actors_by_ids_destroyed" });
await call("GET", `/actors?name=counter&key=one&${ns}`, { name: "actors_by_key_destroyed" });
await call("GET", `/actors?name=counter&include_destroyed=true&${ns}`, { name: "actors_include_destroyed" });
await call("GET", `/gateway/${id}/`, { name: "error_gateway_destroyed_actor" });
await call("GET", `/actors/${id}/kv/keys/Y291bnQ%3D?${ns}`, { name: "error_kv_destroyed_actor" });

runner.kill("SIGTERM");
await new Promise((resolve) => runner.on("exit", resolve));
await call("GET", `/runners?${ns}`, { name: "runners_after_runner_left" });
await call("GET", `/runners?include_stopped=true&${ns}`, { name: "runners_include_stopped" });
await call("GET", `/actors?name=counter&${ns}`, { name: "actors_after_runner_left" });
await call("POST", "/actors?" + ns, { body: create("nobody"), name: "actors_create_without_runner" });
const waiting = await call("POST", "/actors?" + ns, { body: create("nobody-restart", { crash_policy: "restart" }), name: "actors_create_without_runner_restart" });
await delay(500);
await call("GET", `/actors?name=counter&${ns}`, { name: "actors_without_runner" });
await call("GET", `/gateway/${waiting.body.actor.actor_id}/`, { name: "error_gateway_actor_ready_timeout", note: "no runner connected" });
