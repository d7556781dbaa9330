import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// The gateway's listener: TLS, and what becomes of open connections at its end.
    @Suite struct ListenerTests {
        /// Arguments: port, PEM file of the authority, key, how often certificates are asked for. Speaks https and wss by Python's own
        /// library.
        private static let script = #"""
            import http.client, json, os, socket, ssl, struct, sys, time
            port, authority, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
            context = ssl.create_default_context(cafile=authority)

            class Socket:
                def __init__(self):
                    self.tls = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
                    self.tls.sendall(b"GET /ws/agent/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                     b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
                    head = b""
                    while b"\r\n\r\n" not in head: head += self.tls.recv(1)
                    assert head.startswith(b"HTTP/1.1 101") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head

                def ask(self, kind, **payload):
                    text = json.dumps({"version": "1.0", "msg_type": kind, "session_id": "", "payload": payload, "timestamp": 1}).encode()
                    mask = os.urandom(4)
                    self.tls.sendall(struct.pack("!BBH", 0x81, 0x80 | 126, len(text)) + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(text)))
                    length = self.exactly(2)[1]
                    if length == 126: length = struct.unpack("!H", self.exactly(2))[0]
                    return json.loads(self.exactly(length))

                def exactly(self, count):
                    got = b""
                    while len(got) < count:
                        piece = self.tls.recv(count - len(got))
                        assert piece, "closed"
                        got += piece
                    return got

            def get():
                connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
                connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + key})
                serial = connection.sock.getpeercert()["serialNumber"]
                answer = connection.getresponse()
                assert answer.status == 200, answer.status
                return serial

            # RFC 8996: TLS 1.0 and 1.1 are not spoken.
            outdated = ssl.create_default_context(cafile=authority)
            outdated.set_ciphers("ALL:@SECLEVEL=0")
            outdated.minimum_version, outdated.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            try:
                outdated.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost")
                sys.exit("TLS 1.1 was accepted")
            except ssl.SSLError as error: print("refused", error.reason, flush=True)

            old = Socket()
            assert old.ask("REGISTER", auth={"type": "API_KEY", "api_key": key}, platform="TV")["msg_type"] == "REGISTER_ACK"
            before = get()
            print("serial", before, flush=True)
            # The certificate is replaced meanwhile; who is connected stays so.
            end = time.monotonic() + 15
            while get() == before: assert time.monotonic() < end, "the certificate stays the same"
            assert old.ask("HEALTH_CHECK")["msg_type"] == "HEALTH_CHECK_ACK"
            print("serial", get(), flush=True)
            """#

        private func certificate(in folder: TemporaryFolder, serial: Int) async throws {
            let made = try await Program.run(
                "openssl",
                [
                    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
                    "-addext",
                    "subjectAltName=DNS:localhost", "-days", "2", "-set_serial", "\(serial)", "-keyout", folder.file("next-key.pem"),
                    "-out",
                    folder.file("next.pem"),
                ])
            #expect(made.succeeded, "\(made.output)")
            for name in ["key", "certificate"] {
                let (from, to) = (folder.file(name == "key" ? "next-key.pem" : "next.pem"), folder.file("\(name).pem"))
                guard rename(from, to) == 0 else { throw Unexpected(description: "rename \(from): \(String(cString: strerror(errno)))") }
            }
        }

        @Test(.enabled("needs openssl and python3") { Program.find("openssl") != nil && Program.find("python3") != nil })
        func `https and wss, and SIGHUP serves the new certificate`() async throws {
            try await withLab(simulator: false) { lab in
                try await certificate(in: lab.folder, serial: 0x51)
                let gateway = try await lab.gateway(
                    "g1",
                    [
                        "SLUICE_TLS_CERTIFICATE_FILE": lab.folder.file("certificate.pem"),
                        "SLUICE_TLS_KEY_FILE": lab.folder.file("key.pem"), "SLUICE_HANDSHAKE_TIMEOUT": "2s",
                    ], ready: false)
                try await until("the gateway to listen") { gateway.log.contains("gateway listening") }
                // Who never gets as far as TLS, or thinks that this is plain HTTP.
                let (silent, plain) = (try await RawHTTPConnection(gateway.port), try await RawHTTPConnection(gateway.port))
                try await plain.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                // Both certificates are trusted: what is served is told by the serial.
                let (authorities, output) = (lab.folder.file("authorities.pem"), lab.folder.file("client.log"))
                let first = try String(contentsOfFile: lab.folder.file("certificate.pem"), encoding: .utf8)
                try await certificate(in: lab.folder, serial: 0x52)
                let second = try String(contentsOfFile: lab.folder.file("certificate.pem"), encoding: .utf8)
                try (first + second).write(toFile: authorities, atomically: true, encoding: .utf8)
                let python = try #require(Program.find("python3"))
                let client = try ChildProcess.spawn(
                    python, ["-c", Self.script, "\(gateway.port)", authorities, lab.key], environment: Executable.environment,
                    output: output,
                    errors: output)
                func text() -> String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }
                try await until("the first certificate: \(text())") { text().contains("serial 51") }
                let process = try #require(gateway.processID)
                // A gateway that has only just started may not listen to signals yet.
                try await until("the certificate to be read again", every: .milliseconds(200)) {
                    kill(process, SIGHUP)
                    return gateway.log.contains("certificate read again")
                }
                #expect(!(try await plain.end()).contains("HTTP"))
                #expect(try await silent.end() == "<closed>")
                let status = await client.wait(deadline: .seconds(20))
                await client.destroy()
                #expect(status == .exited(0) && text().contains("serial 52"), "\(text())")
                // Files that are no certificate: the one that is served stays.
                try "rubbish".write(toFile: lab.folder.file("certificate.pem"), atomically: true, encoding: .utf8)
                kill(try #require(gateway.processID), SIGHUP)
                try await until("the log to say so") { gateway.log.contains("certificate could not be read again") }
                #expect(gateway.isRunning)
            }
        }

        @Test(arguments: [1, 2])
        func `a completion that the end of its gateway cuts off is interrupted`(signals: Int) async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway("g1", ["SLUICE_DRAIN_TIMEOUT": signals == 1 ? "200ms" : "60s"])
                let model = lab.model("sim-n3000-g10")
                let (port, key) = (gateway.port, lab.key)
                let call = Task {
                    try await HTTPCall.post(
                        port, "/v1/chat/completions",
                        ["model": .string(model), "stream": true, "messages": [["role": "user", "content": "x"]]],
                        headers: ["authorization": "Bearer \(key)"])
                }
                try await until("the first token") { try await lab.upstream().of(model: model).first?.firstToken != nil }
                gateway.terminate()
                if signals == 2 {
                    try await until("the drain to begin") { gateway.log.contains("draining") }
                    gateway.terminate()
                }
                _ = try await gateway.ended(within: .seconds(5))
                _ = await call.result
                let request = try await lab.endedRequest(model: model)
                #expect(request.end == .clientClosed && request.tokens < 2_000)
                try await until("its record") { try await lab.record(request.tag)["reason"] == "CLIENT_GONE" }
            }
        }
    }
}
