// An app whose bodies are large, slow, or never end.
import { createServer } from "node:http";
import { once } from "node:events";

let aborted = 0;
let waiting = 0;
let go;
const gone = new Promise((resolve) => (go = resolve));

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://app");
  request.on("error", () => {});
  // Closed before it was complete: nobody waits for the answer any more.
  response.on("close", () => (aborted += response.writableFinished ? 0 : 1));
  switch (pathname) {
    case "/bytes": {
      const piece = Buffer.alloc(65536, 7);
      for (let left = Number(searchParams.get("n")); left > 0 && !response.destroyed; left -= piece.length) {
        if (!response.write(left < piece.length ? piece.subarray(0, left) : piece)) {
          await Promise.race([once(response, "drain"), once(response, "close")]);
        }
      }
      return response.end();
    }
    case "/count": {
      await gone;
      let bytes = 0;
      for await (const piece of request) bytes += piece.length;
      return response.end(`${bytes}`);
    }
    case "/go":
      go();
      return response.end("gone");
    case "/events":
      response.writeHead(200, { "content-type": "text/event-stream" });
      return response.write("data: first\n\n");
    case "/hangs":
      waiting += 1;
      return;
    case "/swallows":
      return request.once("data", () => (waiting += 1));
    case "/breaks":
      response.write("half");
      await gone;
      return response.destroy();
    case "/aborted":
      return response.end(`${aborted}`);
    case "/waiting":
      return response.end(`${waiting}`);
    default:
      return response.end("ok");
  }
}).listen(process.env.ACTOR_SOCKET);
