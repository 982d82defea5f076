// What the actors written in JavaScript share: what they put down, how they read, and that none stays behind.

import { appendFileSync } from "node:fs";
import http from "node:http";

// Puts down a line of JSON in the file LEDGER. One short write with O_APPEND: lines of several processes never mix, and
// a killed process has written all of it or nothing.
export function note(what, fields) {
  appendFileSync(process.env.LEDGER, JSON.stringify({ what, at: Date.now(), pid: process.pid, ...fields }) + "\n");
}

export async function read(stream) {
  return Buffer.concat(await stream.toArray()).toString();
}

// One call of the actor API at `there`, which is a host and port or a socket; what it answers, unless it refuses.
export function call(there, token, method, path, body) {
  return new Promise((done, failed) => {
    const headers = { authorization: `Bearer ${token}` };
    const request = http.request({ ...there, method, path, headers }, async (response) => {
      const text = await read(response);
      if (response.statusCode < 300) done(text);
      else failed(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
    });
    request.on("error", failed);
    request.end(body);
  });
}

// A runner that is killed cannot end what it has started; its successor does. Should there be none, this does.
let orphaned = 0;
const parent = process.ppid;
setInterval(() => {
  orphaned = process.ppid === parent ? 0 : orphaned + 1;
  if (orphaned > 60) process.exit(0);
}, 1000).unref();
