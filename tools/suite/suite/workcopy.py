"""A private place for each worker: a copy of the tests, and a range of ports."""

import os
import re
import shutil
import socket
import subprocess

# Every worker has a range of SPAN ports: one to reserve the range, 32 for the
# suite itself, PORTS for servers.  The cluster bus of a server is 10000 higher,
# which is still below the usual range of ephemeral ports.
FIRST_RANGE, SPAN, RANGES = 11000, 500, 20
PORTS = SPAN - 33


class WorkCopy:
    """A private copy of the tests with links to the binaries under test."""

    def __init__(self, tree, parent, number, base, options, certificates=None):
        self.tree, self.base, self.options = tree, base, options
        self.path = os.path.join(os.path.realpath(parent), f"w{number}")
        os.makedirs(os.path.join(self.path, "src"))
        shutil.copytree(
            os.path.join(tree.path, "tests"), os.path.join(self.path, "tests"),
            symlinks=True, ignore=lambda folder, names: [
                n for n in names if n.endswith((".o", ".xo"))
                or (os.path.basename(folder) == "tmp" and n[0] != ".")])
        for entry in os.listdir(tree.path):      # redis.conf, utils, ...
            if entry not in ("src", "tests", "deps", "debian"):
                os.symlink(os.path.join(tree.path, entry),
                           os.path.join(self.path, entry))
        for program, binary in options.programs.items():
            for prefix in ("redis", "valkey"):
                os.symlink(binary, os.path.join(
                    self.path, "src", f"{prefix}-{program}"))
        if certificates:
            shutil.copytree(certificates, os.path.join(self.path, "tests", "tls"))
        self._adapt()

    def _edit(self, name, *changes):
        path = os.path.join(self.path, "tests", *name.split("/"))
        if not os.path.isfile(path):
            return
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            text = f.read()
        for pattern, replacement in changes:
            text = re.sub(pattern, replacement, text)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(text)

    def _adapt(self):
        # The suite polls for the start message of a server that has already
        # died for two minutes; incomplete servers make that far too long.
        self._edit("support/server.tcl",
                   (r"\b120\*1000\b", f"{self.options.start_wait}*1000"))
        # The multi-instance runners have fixed ports.
        self._edit("instances.tcl",
                   (r"(set ::sentinel_base_port )\d+", rf"\g<1>{self.base}"),
                   (r"(set ::(?:redis|valkey)_base_port )\d+",
                    rf"\g<1>{self.base + 100}"),
                   (r"(set ::(?:redis|valkey)_port_count )\d+",
                    rf"\g<1>{PORTS - 100}"),
                   # A server that does not start is tried a hundred times.
                   (r"(set retry )100(\s+while \{\$retry\})", r"\g<1>3\g<2>"))
        if self.options.dropped:
            drop = "|".join(re.escape(d) for d in self.options.dropped)
            self._edit("assets/default.conf", (rf"(?m)^(?:{drop})[ \t].*\n?", ""))

    def clean(self):
        """Empty the suites' scratch directories, keeping the directories."""
        for folder in ("tests/tmp", "tests/cluster/tmp", "tests/sentinel/tmp"):
            full = os.path.join(self.path, *folder.split("/"))
            if not os.path.isdir(full):
                continue
            for entry in os.listdir(full):
                path = os.path.join(full, entry)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif not entry.startswith("."):
                    os.unlink(path)

    def server_logs(self):
        """Log files of the servers that the last unit started, oldest first."""
        logs = []
        for folder in ("tests/tmp", "tests/cluster/tmp", "tests/sentinel/tmp"):
            full = os.path.join(self.path, *folder.split("/"))
            for root, _, files in os.walk(full):
                logs += [os.path.join(root, f) for f in files
                         if f.startswith(("stdout", "stderr"))
                         or f in ("log.txt", "err.txt")]
        return sorted(logs, key=lambda p: os.path.getmtime(p))


def make_certificates(tree, parent):
    """The certificates of a run over TLS; returns their folder. They are those of the trees' script
    utils/gen-test-certs.sh, but all of version 3, which that script leaves to OpenSSL's, and without
    its minute for parameters of Diffie and Hellman: those of RFC 7919 are as good."""
    folder = os.path.join(parent, "certificates")
    os.makedirs(folder)

    def openssl(*args):
        done = subprocess.run(["openssl", *args], cwd=folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise SystemExit(f"openssl: {done.stdout.decode('utf-8', 'replace')}")

    key_usage = "keyUsage=digitalSignature,keyEncipherment\n"
    subject = "/O=Test/CN="
    openssl("req", "-x509", "-new", "-nodes", "-newkey", "rsa:4096", "-keyout", "ca.key",
            "-days", "365", "-subj", subject + "Authority", "-out", "ca.crt")
    for name, extensions in (("server", key_usage + "nsCertType=server\n"),
                             ("client", key_usage + "nsCertType=client\n"),
                             (tree.family, "subjectKeyIdentifier=hash\n")):
        with open(os.path.join(folder, name + ".ext"), "w", encoding="utf-8") as f:
            f.write(extensions)
        openssl("req", "-new", "-nodes", "-newkey", "rsa:2048", "-keyout", name + ".key",
                "-subj", subject + name, "-out", name + ".csr")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "365", "-extfile", name + ".ext",
                "-out", name + ".crt")
    openssl("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048",
            "-out", tree.family + ".dh")
    return folder


class PortLease:
    """A range of ports that no other runner on this machine uses now; it is
    reserved by a bound socket at its start."""

    def __init__(self):
        for start in range(FIRST_RANGE, FIRST_RANGE + RANGES * SPAN, SPAN):
            self.lock = socket.socket()
            try:
                self.lock.bind(("127.0.0.1", start))
            except OSError:
                self.lock.close()
                continue
            self.base = start + SPAN - PORTS
            return
        raise SystemExit("no free range of ports: too many runners?")
