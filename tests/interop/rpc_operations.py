"""What an operator does to rpc_test_server while clients call: drain, new certificates, keys.

SPDX-License-Identifier: Apache-2.0
"""

import os
import signal
import socket
import threading
import time
import warnings

import grpc

import rpc_support as t
from rpc_support import MIB, SLOW, check, check_equal, fails_with, wait_until

Code = grpc.StatusCode


def drain_under_load():
    """What was accepted is answered; only calls that no server has seen are refused."""
    server = t.Server(["--threads", "8", "--grace-ms", str(5000 * SLOW)])
    stub = server.stub()
    Request = stub.EchoRequest
    codes, lock, stop = {}, threading.Lock(), threading.Event()

    def caller():
        while not stop.is_set():
            try:
                stub.Unary(Request(delay_ms=20, payload=b"x" * 1000), timeout=20)
                code = Code.OK
            except grpc.RpcError as error:
                code = error.code()
                if code == Code.UNAVAILABLE:
                    with lock:
                        details.add(error.details())
            with lock:
                codes[code] = codes.get(code, 0) + 1
            if code != Code.OK:
                return

    details = set()
    callers = [threading.Thread(target=caller) for _ in range(16)]
    for c in callers:
        c.start()
    time.sleep(0.5)
    stream = stub.Stream(Request(count=50, delay_ms=10 * SLOW))
    next(stream)
    health = server.stub("grpc.health.v1.Health")
    watch = health.Watch(health.HealthCheckRequest())
    check_equal(next(watch).status, 1, "serving")
    server.signal(signal.SIGTERM)
    check_equal(next(watch).status, 2, "not serving: the first step of a drain")
    fails_with(Code.UNAVAILABLE, lambda: next(watch))
    check_equal(sum(1 for _ in stream), 49, "messages of a stream that was open")
    for c in callers:
        c.join()
    stop.set()
    last, status = server.stop()
    check_equal(last, "stopped, 0 cancelled", "the server's last line")
    check_equal(status, 0, "exit status")
    check_equal(set(codes) - {Code.OK, Code.UNAVAILABLE}, set(), f"codes {codes}")
    # Refused: the connection was gone before the call; never after it had been sent.
    for text in details:
        check("connect" in text.lower() or "closed" in text.lower() or "GOAWAY" in text, text)
    check(codes[Code.OK] > 100, f"calls answered: {codes}")


def raw_drain_loses_nothing():
    """One client with HTTP/2 of its own ideas: every call sent before the GOAWAY is answered."""
    server = t.Server(["--threads", "32", "--grace-ms", str(5000 * SLOW)])
    stub = server.stub()
    futures = [stub.Unary.future(stub.EchoRequest(delay_ms=500 * SLOW, payload=b"%d" % i))
               for i in range(32)]
    wait_until(lambda: server.stats().calls >= 32, 3, "all calls are in")
    server.signal(signal.SIGTERM)
    check_equal([f.result().payload for f in futures], [b"%d" % i for i in range(32)], "answers")
    last, _ = server.stop()
    check_equal(last, "stopped, 0 cancelled", "the server's last line")


def grace_ends():
    server = t.Server(["--grace-ms", "300"])
    stub = server.stub()
    future = stub.Unary.future(stub.EchoRequest(delay_ms=60000))
    wait_until(lambda: server.stats().calls >= 2, 3, "the call is in")
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    error = fails_with(Code.UNAVAILABLE, future.result)
    check("stopping" in error.details(), error.details())
    last, status = server.stop()
    check(time.monotonic() - start < 3 * SLOW, "stops soon after its grace")
    check_equal((last, status), ("stopped, 1 cancelled", 0), "the server's end")


def idle_clients_do_not_hold_it():
    server = t.Server(["--grace-ms", "20000"])
    stub = server.stub()
    stub.Direct(stub.EchoRequest())
    raw = socket.create_connection(("127.0.0.1", server.port)) # never says a word
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    last, _ = server.stop()
    raw.close()
    check(time.monotonic() - start < 4 * SLOW, f"took {time.monotonic() - start:.1f} s")
    check_equal(last, "stopped, 0 cancelled", "the server's last line")


def reload_certificates():
    with t.Server(mode="mtls") as server:
        c = server.certificates
        old = server.stub()
        old.Direct(old.EchoRequest())
        before = peer_certificate(server)
        c.issue("server", "ca", "renewed")
        check_equal(peer_certificate(server), before, "the certificate until the reload")
        server.signal(signal.SIGHUP)
        check_equal(server.line(5), "reloaded", "the server says")
        check(peer_certificate(server) != before, "new connections see the new certificate")
        old.Direct(old.EchoRequest()) # the old connection lives on
        # A broken file changes nothing.
        with open(c.path("server.crt"), "w") as f:
            f.write("no certificate")
        server.signal(signal.SIGHUP)
        line = server.line(5)
        check("server.crt" in line and "cannot read" in line, line)
        new = server.stub()
        new.Direct(new.EchoRequest(), timeout=5 * SLOW)
        # Another CA for clients: theirs are no longer let in.
        c.issue("server", "ca")
        os.replace(c.path("ca.crt"), c.path("first.crt"))
        with open(c.path("ca.crt"), "wb") as f:
            f.write(c.read("other.crt"))
        server.signal(signal.SIGHUP)
        check_equal(server.line(5), "reloaded", "the server says")
        with open(c.path("ca.crt"), "wb") as f: # what clients trust
            f.write(c.read("first.crt"))
        late = server.stub()
        fails_with(Code.UNAVAILABLE, late.Direct, late.EchoRequest(), timeout=3 * SLOW)
        stranger = server.stub(client="stranger")
        stranger.Direct(stranger.EchoRequest(), timeout=5 * SLOW)
        old.Direct(old.EchoRequest())


def tls_context(server, protocols=("h2",), client=True):
    import ssl
    context = ssl.create_default_context(cafile=server.certificates.path("ca.crt"))
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    if client:
        c = server.certificates
        context.load_cert_chain(c.path("client.crt"), c.path("client.key"))
    return context


def peer_certificate(server):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        with tls_context(server).wrap_socket(raw) as tls:
            return tls.getpeercert(binary_form=True)


def handshakes_refused():
    import ssl
    with t.Server(mode="mtls") as server:
        for client in (None, "stranger"):
            stub = server.stub(client=client)
            fails_with(Code.UNAVAILABLE, stub.Direct, stub.EchoRequest(), timeout=3 * SLOW)

        def attempt(context):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                with context.wrap_socket(raw) as tls:
                    tls.settimeout(5 * SLOW)
                    return tls.recv(100), tls.version()

        def refused(context, what):
            try:
                data, _ = attempt(context)
            except (ssl.SSLError, ConnectionError):
                return
            check_equal(data, b"", what)

        data, version = attempt(tls_context(server))
        check(len(data) > 9 and version == "TLSv1.3", f"{version}, {data!r}")
        refused(tls_context(server, ("http/1.1",)), "HTTP/1.1 by ALPN")
        refused(tls_context(server, ()), "no ALPN")
        two = tls_context(server)
        two.maximum_version = ssl.TLSVersion.TLSv1_2
        check_equal(attempt(two)[1], "TLSv1.2", "TLS 1.2 is let in")
        one = tls_context(server)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore") # Python warns of what we mean to do
            one.minimum_version = ssl.TLSVersion.TLSv1
            one.maximum_version = ssl.TLSVersion.TLSv1_1
        one.set_ciphers("ALL:@SECLEVEL=0")
        refused(one, "TLS 1.1")
        with socket.create_connection(("127.0.0.1", server.port)) as raw: # plain HTTP/2 to TLS
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            raw.settimeout(5 * SLOW)
            try:
                while raw.recv(1000):
                    pass
            except ConnectionError:
                pass
        stub = server.stub()
        stub.Direct(stub.EchoRequest(), timeout=5 * SLOW)


def bearer_keys():
    import tempfile
    with tempfile.NamedTemporaryFile("w+") as f:
        f.write("# frontends\nfirst-key-0123456789\n\n  second-key-0123456789  \n")
        f.flush()
        with t.Server(["--keys", f.name]) as server:
            stub = server.stub()
            h = server.stub("grpc.health.v1.Health")

            def call(value, name="authorization"):
                metadata = [(name, value)] if value else None
                return stub.Direct(stub.EchoRequest(names=["authorization"]), metadata=metadata)

            for good in ("Bearer first-key-0123456789", "bearer second-key-0123456789"):
                call(good)
            for bad in (None, "Bearer", "Basic first-key-0123456789", "first-key-0123456789",
                        "Bearer first-key-012345678", "Bearer first-key-01234567890",
                        "Bearer # frontends", "Bearer " + "x" * 5000):
                fails_with(Code.UNAUTHENTICATED, call, bad)
            channel = server.channel()
            nope = channel.unary_unary("/no.such/Method", bytes, bytes)
            fails_with(Code.UNAUTHENTICATED, nope, b"")
            check_equal(h.Check(h.HealthCheckRequest()).status, 1, "health needs no key")
            f.seek(0)
            f.truncate()
            f.write("third-key-0123456789\n")
            f.flush()
            server.signal(signal.SIGHUP)
            check_equal(server.line(5), "reloaded", "the server says")
            fails_with(Code.UNAUTHENTICATED, call, "Bearer first-key-0123456789")
            call("Bearer third-key-0123456789")


def sheds_load():
    with t.Server(["--max-calls", "4", "--max-buffered", str(8 * MIB)]) as server:
        stub = server.stub()
        Request = stub.EchoRequest
        calls = [stub.Unary.future(Request(delay_ms=500 * SLOW)) for _ in range(12)]
        # The C core keeps the retry hint to itself; unit/test_rpc_server.c looks at it.
        shed = [c.details() for c in calls if c.code() == Code.RESOURCE_EXHAUSTED]
        check(8 <= len(shed) <= 10, f"{len(shed)} of 12 calls were shed")
        check("too many calls" in shed[0], shed[0])
        check_equal(sum(c.code() == Code.OK for c in calls), 12 - len(shed), "answered calls")
        error = fails_with(Code.RESOURCE_EXHAUSTED, stub.Direct, Request(payload=bytes(10 * MIB)))
        check("buffers are full" in error.details(), error.details())
        wait_until(lambda: server.stats().buffered_bytes < 10000, 3, "the buffers are given back")


t.run([
    ("drain under load", drain_under_load), ("drain with calls in work", raw_drain_loses_nothing),
    ("the grace ends", grace_ends), ("idle clients do not hold a stop", idle_clients_do_not_hold_it),
    ("reload of certificates", reload_certificates), ("refused handshakes", handshakes_refused),
    ("bearer keys", bearer_keys), ("overload is shed", sheds_load),
], "operations")
