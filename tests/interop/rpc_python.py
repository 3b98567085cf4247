"""python3-grpcio (the C core of the gRPC project) against rpc_test_server, in one mode.

    rpc_python.py plain|tls|mtls|unix
SPDX-License-Identifier: Apache-2.0
"""

import signal
import sys
import threading
import time

import grpc

import rpc_support as t
from rpc_support import MIB, SLOW, check, check_equal, fails_with, wait_until

Code = grpc.StatusCode
MODE = sys.argv[1]
ARGUMENTS = ["--max-message", str(4 * MIB), "--gzip-from", "2000", "--threads", "8"]
server = t.Server(ARGUMENTS, MODE)
stub = server.stub()
Request = stub.EchoRequest


def unary():
    reply = stub.Unary(Request(payload=b"hello"), timeout=5 * SLOW)
    check_equal(reply.payload, b"hello", "payload")
    check(reply.peer == "unix" if MODE == "unix" else reply.peer.startswith("127.0.0.1:"),
          f"peer {reply.peer!r}")
    check_equal(stub.Direct(Request(payload=b"again")).payload, b"again", "payload")


def empty_messages():
    reply = stub.Direct(Request())
    check_equal(reply.payload, b"", "payload")


def thousand_small():
    got = [r.index for r in stub.Stream(Request(count=1000, payload=b"x"))]
    check_equal(got, list(range(1000)), "indices")


def fifty_large():
    sizes = [len(r.payload) for r in stub.Stream(Request(count=50, reply_bytes=MIB))]
    check_equal(sizes, [MIB] * 50, "sizes")


def slow_reader_is_waited_for():
    before = server.stats().blocked_writes
    call = stub.Stream(Request(count=40, reply_bytes=MIB))
    next(call)
    wait_until(lambda: server.stats().blocked_writes > before, 5, "the writer waits")
    time.sleep(0.2)
    check(server.stats().buffered_bytes < 3 * MIB,
          f"{server.stats().buffered_bytes} bytes wait for one slow client")
    check_equal(sum(1 for _ in call), 39, "messages after the pause")


def status_and_message():
    for text in ("größer als 100 % %zz", "plain", "日本語\n\ttab", "x" * 1000):
        error = fails_with(Code.FAILED_PRECONDITION, stub.Unary, Request(code=9, message=text))
        check_equal(error.details(), text, "message")
    error = fails_with(Code.ABORTED, stub.Stream, Request(count=3, code=10, message="late"))
    check_equal(error.details(), "late", "message after a stream")
    error = fails_with(Code.INTERNAL, stub.Unary, Request(forget=True))
    check("no answer" in error.details(), error.details())
    error = fails_with(Code.INTERNAL, stub.Direct, Request(forget=True))


def unknown_method():
    channel = server.channel()
    for path in ("/mixrank.test.Echo/Nope", "/no.such.Service/Unary", "/mixrank.test.Echo/unary"):
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        fails_with(Code.UNIMPLEMENTED, call, b"x")


def malformed_message():
    channel = server.channel()
    call = channel.unary_unary("/mixrank.test.Echo/Unary", request_serializer=bytes,
                               response_deserializer=bytes)
    fails_with(Code.INVALID_ARGUMENT, call, b"\x0a\xff\xff\xff")


def deadline():
    before = server.stats()
    start = time.monotonic()
    fails_with(Code.DEADLINE_EXCEEDED, stub.Unary, Request(delay_ms=5000 * SLOW), timeout=0.2)
    check(time.monotonic() - start < 1.5 * SLOW, "the deadline is kept")
    wait_until(lambda: server.stats().cancelled > before.cancelled, 1, "the work is given up")
    wait_until(lambda: server.stats().hooks > before.hooks, 1, "the hook runs")
    left = stub.Direct(Request(), timeout=7).deadline_left_us
    check(4e6 < left < 7.2e6, f"{left} us left of 7 s")
    left = stub.Direct(Request()).deadline_left_us
    check(55e6 < left <= 60e6, f"{left} us left of the server's own 60 s")


def client_cancels():
    before = server.stats()
    future = stub.Unary.future(Request(delay_ms=5000 * SLOW))
    time.sleep(0.1 * SLOW)
    future.cancel()
    wait_until(lambda: server.stats().cancelled > before.cancelled, 1, "the work is given up")
    wait_until(lambda: server.stats().hooks > before.hooks, 1, "the hook runs")


def cancelled_stream():
    before = server.stats()
    call = stub.Stream(Request(count=1000000, reply_bytes=1000, delay_ms=1))
    for _ in range(10):
        next(call)
    call.cancel()
    wait_until(lambda: server.stats().cancelled > before.cancelled, 1, "the stream is given up")


def metadata():
    sent = [("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-raw-bin", b"\x00\xff\x80"),
            ("x-empty-bin", b""), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")]
    names = ["x-one", "x-two", "x-raw-bin", "x-empty-bin", "traceparent"]
    reply, call = stub.Unary.with_call(Request(names=names), metadata=sent)
    for back in (call.initial_metadata(), call.trailing_metadata()):
        got = [(k, v) for k, v in back if k in names]
        check_equal(sorted(got), sorted(sent), "metadata")
    call = stub.Stream(Request(count=2, names=names), metadata=sent)
    list(call)
    check_equal(sorted((k, v) for k, v in call.trailing_metadata() if k in names), sorted(sent),
                "trailers of a stream")


def compression():
    body = bytes(range(256)) * 400
    for kind in (grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression):
        reply = stub.Unary(Request(payload=body), compression=kind)
        check_equal(reply.payload, body, f"payload with {kind}")
    error = fails_with(Code.RESOURCE_EXHAUSTED, stub.Unary, Request(payload=bytes(30 * MIB)),
                       compression=grpc.Compression.Gzip)
    check("after decompression" in error.details(), error.details())


def sizes():
    body = bytes(int(3.9 * MIB))
    check_equal(stub.Unary(Request(payload=body)).payload, body, "3.9 MB")
    error = fails_with(Code.RESOURCE_EXHAUSTED, stub.Unary, Request(payload=bytes(5 * MIB)))
    check(f"at most {4 * MIB}" in error.details(), error.details())
    check_equal(len(stub.Unary(Request(reply_bytes=20 * MIB)).payload), 20 * MIB, "20 MB reply")
    check_equal(stub.Direct(Request(payload=b"ok")).payload, b"ok", "the connection lives on")


def headers_too_large():
    error = fails_with(Code.RESOURCE_EXHAUSTED, stub.Direct, Request(),
                       metadata=[("x-big", "y" * 20000)])
    check("headers of" in error.details() or "metadata" in error.details(), error.details())
    stub.Direct(Request())


def health():
    h = server.stub("grpc.health.v1.Health")
    check_equal(h.Check(h.HealthCheckRequest()).status, 1, "the server")
    check_equal(h.Check(h.HealthCheckRequest(service="mixrank.test.Echo")).status, 1, "the service")
    fails_with(Code.NOT_FOUND, h.Check, h.HealthCheckRequest(service="nobody"))
    statuses = h.List(h.HealthListRequest()).statuses
    check_equal({k: v.status for k, v in statuses.items()}, {"": 1, "mixrank.test.Echo": 1}, "list")
    watch = h.Watch(h.HealthCheckRequest())
    check_equal(next(watch).status, 1, "watched at first")
    server.signal(signal.SIGUSR1)
    check_equal(next(watch).status, 2, "after it was turned off")
    check_equal(h.Check(h.HealthCheckRequest()).status, 2, "checked then")
    server.signal(signal.SIGUSR1)
    check_equal(next(watch).status, 1, "after it was turned on")
    unknown = h.Watch(h.HealthCheckRequest(service="nobody"))
    check_equal(next(unknown).status, 3, "an unknown service is watched")
    unknown.cancel()
    watch.cancel()


def ask(version, *questions):
    r = server.stub(f"grpc.reflection.{version}.ServerReflection")
    return list(r.ServerReflectionInfo(iter([r.ServerReflectionRequest(**q) for q in questions])))


def reflection():
    for version in ("v1", "v1alpha"):
        answers = ask(version, {"list_services": "*"},
                      {"file_containing_symbol": "mixrank.test.Echo"},
                      {"file_containing_symbol": "mixrank.test.EchoRequest.payload"},
                      {"file_containing_symbol": "grpc.health.v1.HealthCheckResponse.SERVING"},
                      {"file_by_filename": "grpc/health/v1/health.proto"},
                      {"file_containing_symbol": "no.such"}, {"file_by_filename": "none.proto"},
                      {"all_extension_numbers_of_type": "mixrank.test.EchoReply"},
                      {"host": "h"})
        names = [s.name for s in answers[0].list_services_response.service]
        check_equal(sorted(names), ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                                    "grpc.reflection.v1alpha.ServerReflection",
                                    "mixrank.test.Echo"], "services")
        for i, name in ((1, b"echo.proto"), (2, b"echo.proto"), (3, b"grpc/health/v1/health.proto"),
                        (4, b"grpc/health/v1/health.proto")):
            files = answers[i].file_descriptor_response.file_descriptor_proto
            check(len(files) == 1 and name in files[0], f"file of question {i}")
        for i in (5, 6):
            check_equal(answers[i].error_response.error_code, 5, f"question {i}")
        check_equal(answers[7].all_extension_numbers_response.base_type_name,
                    "mixrank.test.EchoReply", "extensions")
        check_equal(answers[8].error_response.error_code, 3, "no question")
        check_equal(answers[8].original_request.host, "h", "the question comes back")


def many_questions_and_a_slow_reader():
    r = server.stub("grpc.reflection.v1.ServerReflection")
    question = r.ServerReflectionRequest(file_containing_symbol="mixrank.test.Echo")
    answers = r.ServerReflectionInfo(iter([question] * 3000))
    next(answers)
    time.sleep(0.3)
    check_equal(sum(1 for _ in answers), 2999, "answers")


def keepalive():
    other = server.stub(options=[("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 5000),
                                 ("grpc.keepalive_permit_without_calls", 1),
                                 ("grpc.http2.max_pings_without_data", 0)])
    other.Direct(Request())
    time.sleep(4.5)
    before = server.stats().dropped
    other.Direct(Request(), timeout=2 * SLOW)
    check_equal(server.stats().dropped, before, "dropped connections")


def hundred_at_once():
    other = t.Server(ARGUMENTS[:-1] + ["64"], MODE)
    with other:
        s = other.stub()
        s.Direct(Request())
        start = time.monotonic()
        futures = [s.Unary.future(Request(delay_ms=200, payload=bytes([i]))) for i in range(64)]
        got = [f.result().payload[0] for f in futures]
        took = time.monotonic() - start
        check_equal(got, list(range(64)), "payloads")
        check(took < 0.6 * SLOW, f"64 calls of 200 ms at once took {took:.2f} s")
        futures = [s.Unary.future(Request(delay_ms=10)) for i in range(1000)]
        for future in futures: # more than the streams of a connection: the client queues
            future.result()


def threads():
    errors = []

    def caller(n):
        try:
            for i in range(50):
                body = bytes([n, i]) * (1 + 97 * i)
                check_equal(stub.Unary(Request(payload=body)).payload, body, "payload")
        except Exception as error:
            errors.append(error)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(8)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    check_equal(errors, [], "errors")


def nothing_is_left():
    wait_until(lambda: server.stats().calls <= 1, 3, "all calls are gone")
    check(server.stats().buffered_bytes < 4096, f"{server.stats().buffered_bytes} bytes kept")


TESTS = [
    ("unary", unary), ("empty messages", empty_messages), ("1000 small messages", thousand_small),
    ("50 messages of 1 MiB", fifty_large), ("a slow reader is waited for", slow_reader_is_waited_for),
    ("status and message", status_and_message), ("unknown method", unknown_method),
    ("malformed message", malformed_message), ("deadline", deadline),
    ("the client cancels", client_cancels), ("a stream is cancelled", cancelled_stream),
    ("metadata", metadata), ("compression", compression), ("sizes", sizes),
    ("headers too large", headers_too_large), ("health", health), ("reflection", reflection),
    ("3000 questions", many_questions_and_a_slow_reader), ("keepalive pings", keepalive),
    ("many calls at once", hundred_at_once), ("several threads", threads),
    ("nothing is left", nothing_is_left),
]

with server:
    t.run(TESTS, f"python {MODE}")
