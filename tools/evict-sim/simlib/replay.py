"""A trace through a real server as a cache: GET, and SET after a miss.

Requests are sent in batches, all GETs and then a SET for each miss, so that a replay does not
measure round trips. Within a batch a missing key can miss twice, in every server alike.
"""

import shutil
import time

from benchlib.servers import Resp, Server

BATCH = 32


def command(*parts):
    """A request as bytes of the protocol."""
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    body = b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)
    return b"*%d\r\n%s" % (len(texts), body)


def replay(trace, warm, seconds, talk):
    """The hit ratio after the first `warm` requests. `talk` sends a list of requests and returns the
    replies. With `seconds`, the replay lasts at least that long."""
    hits = counted = 0
    began = time.monotonic()
    for at in range(0, len(trace), BATCH):
        due = began + seconds * at / len(trace)
        time.sleep(max(0.0, due - time.monotonic()) if seconds else 0)
        batch = trace[at:at + BATCH]
        values = talk([command("GET", key) for key, _ in batch])
        missing = {key: size for (key, size), value in zip(batch, values) if value is None}
        if missing:
            talk([command("SET", key, b"x" * size) for key, size in missing.items()])
        if at >= warm:
            counted += len(batch)
            hits += sum(value is not None for value in values)
    return hits / max(1, counted)


def resident_bytes(talk, sizes):
    """The sum of the sizes of the keys that are in the server."""
    cursor, found = b"0", set()
    while True:
        cursor, keys = talk([command("SCAN", cursor, "COUNT", 1000)])[0]
        found.update(keys)
        if int(cursor) == 0:
            return sum(sizes[key] for key in found if key in sizes)


def through_server(spec, policy, maxmemory, trace, warm, seconds):
    """(hit ratio, bytes of the values that are in the server at the end)."""
    name, argv = spec
    server = Server(name, argv, None)
    server.start()
    try:
        with Resp(server.port) as connection:
            connection.ask("CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", maxmemory)

            def talk(requests):
                connection.sock.sendall(b"".join(requests))
                return [connection.reply() for _ in requests]

            ratio = replay(trace, warm, seconds, talk)
            sizes = {str(key).encode(): size for key, size in trace}
            return ratio, resident_bytes(talk, sizes)
    finally:
        server.stop()
        shutil.rmtree(server.dir, ignore_errors=True)
