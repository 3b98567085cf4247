"""HAProxy between client and rpc_test_server, HTTP/2 on both sides. Skipped where it is missing.

SPDX-License-Identifier: Apache-2.0
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import grpc

import rpc_support as t
from rpc_support import MIB, SLOW, check, check_equal, fails_with, wait_until

Code = grpc.StatusCode
HAPROXY = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
if not HAPROXY:
    print("skipped: there is no haproxy")
    sys.exit(77)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proxy:
    def __init__(self, server):
        self.port = free_port()
        path = os.path.join(server.folder, "haproxy.cfg")
        with open(path, "w") as f:
            f.write(f"""
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{self.port} proto h2
    default_backend out
backend out
    server one {server.address} proto h2
""")
        self.process = subprocess.Popen([HAPROXY, "-db", "-q", "-f", path])
        wait_until(self.answers, 5, "haproxy listens")

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=10)


server = t.Server(["--max-message", str(4 * MIB), "--threads", "8"])
proxy = Proxy(server)
stub = server.stub(target=f"127.0.0.1:{proxy.port}")
Request = stub.EchoRequest


def calls():
    check_equal(stub.Unary(Request(payload=b"x")).payload, b"x", "payload")
    check_equal(sum(1 for _ in stub.Stream(Request(count=1000))), 1000, "messages")
    check_equal([len(r.payload) for r in stub.Stream(Request(count=20, reply_bytes=MIB))], [MIB] * 20,
                "sizes")
    body = bytes(int(3.9 * MIB))
    check_equal(stub.Unary(Request(payload=body)).payload, body, "3.9 MB")
    check_equal(len(stub.Unary(Request(reply_bytes=20 * MIB)).payload), 20 * MIB, "20 MB reply")


def errors_come_through():
    """A status that is sent before the request's end survives the proxy (no reset in its face)."""
    for _ in range(5):
        error = fails_with(Code.RESOURCE_EXHAUSTED, stub.Unary, Request(payload=bytes(5 * MIB)))
        check(f"at most {4 * MIB}" in error.details(), error.details())
    error = fails_with(Code.ABORTED, stub.Unary, Request(code=10, message="für %"))
    check_equal(error.details(), "für %", "message")
    channel = server.channel(target=f"127.0.0.1:{proxy.port}")
    nope = channel.unary_unary("/no.such/Method", bytes, bytes)
    fails_with(Code.UNIMPLEMENTED, nope, bytes(MIB))
    fails_with(Code.DEADLINE_EXCEEDED, stub.Unary, Request(delay_ms=3000 * SLOW), timeout=0.2)


def cancelling():
    before = server.stats().cancelled
    future = stub.Unary.future(Request(delay_ms=5000 * SLOW))
    time.sleep(0.2)
    future.cancel()
    wait_until(lambda: server.stats().cancelled > before, 2, "the work is given up")


def metadata():
    names = ["x-one", "x-raw-bin"]
    _, call = stub.Unary.with_call(Request(names=names),
                                   metadata=[("x-one", "1"), ("x-raw-bin", b"\0\xff")])
    got = [(k, v) for k, v in call.trailing_metadata() if k in names]
    check_equal(sorted(got), [("x-one", "1"), ("x-raw-bin", b"\0\xff")], "trailers")


def compression():
    body = b"abc" * 10000
    for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        check_equal(stub.Unary(Request(payload=body), compression=kind).payload, body, "payload")


def many():
    futures = [stub.Unary.future(Request(delay_ms=20, payload=b"%d" % i)) for i in range(300)]
    check_equal([f.result().payload for f in futures], [b"%d" % i for i in range(300)], "payloads")


try:
    with server:
        t.run([("calls", calls), ("errors come through", errors_come_through),
               ("cancelling", cancelling), ("metadata", metadata), ("compression", compression),
               ("many at once", many)], "haproxy")
finally:
    proxy.stop()
