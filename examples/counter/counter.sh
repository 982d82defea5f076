#!/bin/bash
# A counter without a server: it asks for what happens (listen = "pull"), with bash and curl alone.
#   GET / counts up; GET /remind counts once more in two seconds, also when it sleeps; GET /sleep
set -u
trap 'exit 0' TERM    # comes after the stop event, to everything that still runs
auth="Authorization: Bearer $(<"$ACTOR_TOKEN_FILE")"

api() { curl -sSf --unix-socket "$ACTOR_API_SOCKET" -H "$auth" "$@"; }
head_of() { sed -n "s/^$1: \(.*\)\r\$/\1/ip" "$TMPDIR/head"; }
reply() { api -X POST --data-binary "$1" "http://actor/v1/reply/$id?status=${2:-200}"; }
count() {
  n=$(($(api http://actor/v1/kv/count 2>/dev/null || echo 0) + 1))
  api -X PUT --data-binary "$n" http://actor/v1/kv/count
}

while api -D "$TMPDIR/head" -o "$TMPDIR/body" http://actor/v1/next; do
  id=$(head_of actor-event-id)
  case "$(head_of actor-event) $(head_of actor-path)" in
    "request /remind") api -X PUT -d '{"in_ms":2000}' http://actor/v1/alarms/remind
                       reply "in two seconds"$'\n' 202 ;;
    "request /sleep")  api -X POST http://actor/v1/sleep >/dev/null; reply "good night"$'\n' 202 ;;
    "request /"*)      count; reply "$n"$'\n' ;;
    "message "*)       count; reply "$n $(<"$TMPDIR/body")" ;;
    "alarm "*)         count; reply "" ;;
    "stop "*)          reply ""; exit 0 ;;
    " ") ;;                              # nothing happened for a while
    *)                 reply "" ;;       # start, open, close
  esac
done
