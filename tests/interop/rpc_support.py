"""What the clients of rpc_test_server share: the server as a process, certificates, messages.

    with Server(arguments, mode="tls") as server:
        stub = server.stub()
        stub.Unary(stub.EchoRequest(payload=b"x"))

modes: plain, tls, mtls (mutual TLS), unix. RPC_TEST_SERVER and RPC_TEST_DESCRIPTORS name the program
and its descriptor set. SPDX-License-Identifier: Apache-2.0
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

MIB = 1 << 20
# Sanitizers slow everything down; only limits of time look at it.
SLOW = 10 if os.environ.get("SANITIZE") else 1


def load_messages():
    with open(os.environ["RPC_TEST_DESCRIPTORS"], "rb") as f:
        files = descriptor_pb2.FileDescriptorSet.FromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool, message_factory.MessageFactory(pool)


POOL, FACTORY = load_messages()


def message(name):
    return FACTORY.GetPrototype(POOL.FindMessageTypeByName(name))


class Stub:
    """Methods of a service by name, and the messages of its file."""

    def __init__(self, channel, service):
        descriptor = POOL.FindServiceByName(service)
        for method in descriptor.methods:
            request = FACTORY.GetPrototype(method.input_type)
            reply = FACTORY.GetPrototype(method.output_type)
            setattr(self, request.DESCRIPTOR.name, request)
            path = f"/{service}/{method.name}"
            proto = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(proto)
            kind = {(False, False): channel.unary_unary, (False, True): channel.unary_stream,
                    (True, True): channel.stream_stream}[proto.client_streaming, proto.server_streaming]
            setattr(self, method.name, kind(path, request_serializer=request.SerializeToString,
                                            response_deserializer=reply.FromString))


class Certificates:
    """A CA, a server's and a client's certificate, and another CA that nobody trusts."""

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        for ca in ("ca", "other"):
            self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                         "-nodes", "-days", "2", "-subj", f"/CN=test {ca}", "-keyout",
                         self.path(f"{ca}.key"), "-out", self.path(f"{ca}.crt"))
        self.issue("server", "ca")
        self.issue("client", "ca")
        self.issue("stranger", "other")

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def issue(self, name, ca, subject=None):
        with open(self.path("ext"), "w") as f:
            f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-subj", f"/CN={subject or name}", "-keyout", self.path(f"{name}.key"),
                     "-out", self.path("request"))
        self.openssl("x509", "-req", "-in", self.path("request"), "-CA", self.path(f"{ca}.crt"),
                     "-CAkey", self.path(f"{ca}.key"), "-CAcreateserial", "-days", "2",
                     "-extfile", self.path("ext"), "-out", self.path(f"{name}.crt"))

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    def __init__(self, arguments=(), mode="plain", limit_files=None):
        self.mode = mode
        self.certificates = None
        self.folder = tempfile.mkdtemp()
        command = [os.environ["RPC_TEST_SERVER"], "--listen", "127.0.0.1:0"]
        if mode == "unix":
            command[2] = "unix:" + os.path.join(self.folder, "socket")
        if mode in ("tls", "mtls"):
            self.certificates = Certificates()
            c = self.certificates
            command += ["--cert", c.path("server.crt"), "--key", c.path("server.key")]
            if mode == "mtls":
                command += ["--client-ca", c.path("ca.crt")]
        if limit_files:
            command = ["sh", "-c", f'ulimit -n {limit_files}; exec "$@"', "sh"] + command
        self.process = subprocess.Popen(command + list(arguments), stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read_output, daemon=True).start()
        self.address = None
        while True:
            line = self.line(20)
            if line is None:
                raise RuntimeError("the server did not start")
            if line.startswith("listening "):
                self.address = line.split(" ", 1)[1]
            if line == "ready":
                break
        self.channels = []
        self.watcher = None

    def read_output(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, seconds):
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return None

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    def channel(self, options=(), client="client", target=None):
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), *options]
        target = target or self.address
        if self.mode in ("tls", "mtls"):
            c = self.certificates
            key, chain = (None, None)
            if self.mode == "mtls" and client:
                key, chain = c.read(f"{client}.key"), c.read(f"{client}.crt")
            made = grpc.secure_channel(
                target, grpc.ssl_channel_credentials(c.read("ca.crt"), key, chain), options)
        else:
            made = grpc.insecure_channel(target, options)
        self.channels.append(made)
        return made

    def stub(self, service="mixrank.test.Echo", **channel):
        return Stub(self.channel(**channel), service)

    def stats(self):
        if not self.watcher:
            self.watcher = self.stub()
        stub = self.watcher
        return stub.Stats(stub.StatsRequest(), timeout=5 * SLOW)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, seconds=20):
        """The line that the server ends with, and its exit status."""
        for channel in self.channels:
            channel.close()
        self.channels = []
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        last = None
        until = time.monotonic() + seconds * SLOW
        while time.monotonic() < until:
            line = self.line(1)
            if line is None and self.process.poll() is not None:
                break
            last = line or last
        try:
            return last, self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return last, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        last, status = self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.certificates:
            self.certificates.close()
        check(status == 0, f"the server exits with 0 (last line {last!r}, status {status})")


class Failed(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Failed(what)


def check_equal(got, wanted, what):
    check(got == wanted, f"{what}: got {got!r}, expected {wanted!r}")


def fails_with(code, call, *arguments, **keywords):
    """Runs a call that must fail so, and returns its error."""
    try:
        result = call(*arguments, **keywords)
        if hasattr(result, "__next__"):
            for _ in result:
                pass
    except grpc.RpcError as error:
        check_equal(error.code(), code, f"status ({error.details()})")
        return error
    raise Failed(f"a call succeeded that should fail with {code}")


def wait_until(condition, seconds, what):
    until = time.monotonic() + seconds * SLOW
    while not condition():
        check(time.monotonic() < until, f"not within {seconds * SLOW} s: {what}")
        time.sleep(0.02)


def run(tests, title):
    """Runs (name, function) pairs; exits 1 when one failed."""
    failed = 0
    only = os.environ.get("ONLY")
    for name, test in tests:
        if only and only not in name:
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok     {title}: {name} ({time.monotonic() - start:.2f} s)", flush=True)
        except Exception as error:  # noqa: BLE001 - a failure of any kind is one line
            failed += 1
            print(f"FAILED {title}: {name}: {error!r}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc()
    if failed:
        sys.exit(f"{failed} failed")
