// Nanoseconds that the TypeScript runner's codec takes for one frame: `ts_codec.mjs read|write HEX SECONDS`.

import { pathToFileURL } from "node:url";

const protocol = await import(pathToFileURL(`${process.env.MODULES}/@rivetkit/engine-runner-protocol/dist/index.js`));
const [direction, hex, seconds] = process.argv.slice(2);
const frame = new Uint8Array(Buffer.from(hex, "hex"));
const message = direction === "write" ? protocol.decodeToServer(frame) : undefined;
const call = direction === "write" ? () => protocol.encodeToServer(message) : () => protocol.decodeToClient(frame);

let kept;
for (let n = 0; n < 20_000; n++) kept = call();
const begin = process.hrtime.bigint();
let calls = 0;
while (Number(process.hrtime.bigint() - begin) < seconds * 1e9) {
	for (let n = 0; n < 1000; n++) kept = call();
	calls += 1000;
}
const elapsed = Number(process.hrtime.bigint() - begin);
if (kept === undefined) throw new Error("nothing was done");
console.log(elapsed / calls);
