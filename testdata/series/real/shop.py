"""A small HTTP server, healthy or with one of the leaks of its kind.

    shop.py MODE HOST:PORT ORIGIN
"""

import functools
import hashlib
import http.server
import os
import random
import sys
import threading
import time

mode, address = sys.argv[1], sys.argv[2]
kept = {}
lock = threading.Lock()


class Node:
    """Part of a ring: reference counts cannot free it, the collector must."""

    def __init__(self, text):
        self.text, self.next = text, self


def render(path, size=40):
    """Page of about size * 64 bytes, and garbage in rings beside it."""
    nodes = [Node(hashlib.sha256(f"{path}{i}".encode()).hexdigest()) for i in range(size)]
    for a, b in zip(nodes, nodes[1:] + nodes[:1]):
        a.next = b
    return "\n".join(n.text for n in nodes).encode()


cached = functools.lru_cache(maxsize=3000)(render)


def healthy(path):
    """Pages in a cache that is bounded; most are asked for again."""
    return cached(f"/item/{int(random.paretovariate(0.5))}")


def sessions(path):
    """A session for each request, which ends two minutes later."""
    now = time.monotonic()
    with lock:
        kept[path] = now, render(path, 100)
        for old in [p for p, (t, _) in kept.items() if t < now - 120]:
            del kept[old]
    return b"welcome"


def cache(path):
    """Pages in a cache without a bound, under paths that never come back."""
    page = render(path, 20)
    with lock:
        kept[path] = page
    return page


def errors(path):
    """One request of twenty leaves a line in a list for a report."""
    page = render(path, 100)
    if random.random() < 1 / 20:
        with lock:
            kept[path] = page[:500]
    return page


def files(path):
    """One request of a hundred opens a file and keeps it."""
    file = open("/etc/hostname", "rb")
    text = file.read()
    if random.random() < 1 / 100:
        kept[path] = file
    else:
        file.close()
    return text + render(path)


def batch(path):
    """A job: a table of about 20 MB, a sum over it, and nothing left."""
    table = [hashlib.sha256(f"{path}{i}".encode()).hexdigest() for i in range(60_000)]
    by_key = {row[:12]: row for row in table}
    return str(len(by_key)).encode()


def batch_index(path):
    """The same job, of which an index of a few hundred KiB is kept."""
    table = [hashlib.sha256(f"{path}{i}".encode()).hexdigest() for i in range(60_000)]
    kept[path] = {row[:12]: row for row in table[:4000]}
    return str(len(table)).encode()


def warming(path):
    """Loads one of twelve dictionaries when it is first needed."""
    n = int(random.paretovariate(0.7)) % 12
    with lock:
        if n not in kept:
            kept[n] = [hashlib.sha256(f"{n}{i}".encode()).hexdigest() for i in range(25_000)]
    return render(path)


page = {
    "healthy": healthy, "sessions": sessions, "cache": cache, "errors": errors, "files": files,
    "batch": batch, "batch-index": batch_index, "warming": warming,
}[mode]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = page(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


host, port = address.split(":")
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
