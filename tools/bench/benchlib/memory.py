"""Bytes for each element, and the time to save and to load them.

A fresh server for each data set: memory that was freed would hide growth.
"""

import os
import time

from .servers import ServerError
from .workloads import Fill


def data_set(server, elements, count, client):
    """One data set in one server: bytes for each element, and seconds."""
    server.start()
    try:
        used, rss = server.used_memory(), server.rss()
        client.fill(server, Fill(count // elements.per, elements.command))
        result = {"used": (server.used_memory() - used) / count,
                  "rss": (server.rss() - rss) / count}
        result.update(save_and_load(server))
        return result
    finally:
        server.stop()
        remove_dump(server)


def save_and_load(server):
    """Seconds for SAVE, and for a start with its file; {} if it can't save."""
    try:
        began = time.monotonic()
        server.ask("SAVE")
        saved = time.monotonic() - began
    except ServerError:
        return {}
    size = os.path.getsize(dump(server))
    keys = server.ask("DBSIZE")
    server.stop()
    loaded = server.start()
    if server.ask("DBSIZE") != keys:
        raise ServerError("after a restart the keys are not the same")
    return {"save_s": saved, "load_s": loaded, "file": size}


def dump(server):
    return os.path.join(server.dir, "bench.rdb")


def remove_dump(server):
    if os.path.exists(dump(server)):
        os.unlink(dump(server))


def measure(servers, elements, count, client, note):
    """Results of a data set by server's name: figures, or an error."""
    results = {}
    for server in servers:
        try:
            results[server.name] = data_set(server, elements, count, client)
        except (ServerError, OSError) as e:
            results[server.name] = str(e)
        note(f"{elements.name}: {server.name}")
    return results
