"""Processes: their limits and environment, and their certain end.

A unit runs in a session of its own, so that one signal ends it. Daemons leave
that session; they are found by their working directory, which is inside the
unit's private copy, so nothing but what a unit started is ever signalled.
"""

import os
import resource
import signal
import time


def pids_inside(folder):
    """Processes whose working directory is below folder (Linux only)."""
    found = []
    if not os.path.isdir("/proc"):
        return found
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                cwd = os.readlink(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if cwd == folder or cwd.startswith(folder + os.sep):
                found.append(int(entry))
    return found


def kill_all(proc, folder):
    """Kill a unit's process group and whatever has left it (daemons)."""
    if proc is not None:
        try:
            os.killpg(proc.pid, signal.SIGKILL)
        except OSError:
            pass
        proc.wait()
    for _ in range(5):
        left = pids_inside(folder)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.1)


def set_limits():
    """No core files, as many descriptors as allowed; children inherit both."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def child_env():
    env = dict(os.environ, TERM="dumb", LC_ALL="C.UTF-8")
    for name in ("VALKEY_BIN_DIR", "VALKEY_PROG_SUFFIX", "REDISCLI_AUTH"):
        env.pop(name, None)
    return env
