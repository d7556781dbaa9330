import Contract
import Foundation
import JSONCodec
import Support
import TestSupport
import Testing

extension FaultJourneys {
    /// The gateway's listener: TLS, and open connections at its end.
    @Suite struct ListenerTests {
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
                guard unsafe rename(from, to) == 0 else { throw Unexpected(description: "rename \(from): \(SystemCalls.errorText())") }
            }
        }

        @Test(.needs(.openssl, .python))
        func `https and wss, and SIGHUP reloads the certificate`() async throws {
            try await withLab(simulator: false) { lab in
                try await certificate(in: lab.folder, serial: 0x51)
                let gateway = try await lab.gateway(
                    "g1",
                    [
                        "SLUICE_TLS_CERTIFICATE_FILE": lab.folder.file("certificate.pem"),
                        "SLUICE_TLS_KEY_FILE": lab.folder.file("key.pem"), "SLUICE_HANDSHAKE_TIMEOUT": "10s",
                    ], ready: false)
                try await until("the gateway to listen") { gateway.log.contains("gateway listening") }
                // Clients without a TLS handshake.
                let (silent, plain) = (try await RawHTTPConnection(gateway.port), try await RawHTTPConnection(gateway.port))
                try await plain.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                // Both certificates are trusted; the serial number shows which one is used.
                let (authorities, output) = (lab.folder.file("authorities.pem"), lab.folder.file("client.log"))
                let first = try String(contentsOfFile: lab.folder.file("certificate.pem"), encoding: .utf8)
                try await certificate(in: lab.folder, serial: 0x52)
                let second = try String(contentsOfFile: lab.folder.file("certificate.pem"), encoding: .utf8)
                try (first + second).write(toFile: authorities, atomically: true, encoding: .utf8)
                let client = try ChildProcess.spawn(
                    TestProgram.python.require(), ScriptFile.tlsClient.arguments(["\(gateway.port)", authorities, lab.key]),
                    environment: Executable.environment, output: output, errors: output)
                func text() -> String { (try? String(contentsOfFile: output, encoding: .utf8)) ?? "" }
                try await until("the first certificate: \(text())") { text().contains("serial 51") }
                let process = try #require(gateway.processID)
                // The gateway may not handle signals yet.
                try await until("the certificate to be read again", every: .milliseconds(200)) {
                    kill(process, SIGHUP)
                    return gateway.log.contains("certificate reloaded")
                }
                #expect(!(try await plain.end()).contains("HTTP"))
                #expect(try await silent.end() == "<closed>")
                let status = await client.wait(deadline: .testDeadline)
                await client.destroy()
                #expect(status == .exited(0) && text().contains("serial 52"), "\(text())")
                // With an invalid file the current certificate stays.
                try "rubbish".write(toFile: lab.folder.file("certificate.pem"), atomically: true, encoding: .utf8)
                kill(try #require(gateway.processID), SIGHUP)
                try await until("the log to say so") { gateway.log.contains("certificate reload failed") }
                #expect(gateway.isRunning)
            }
        }

        @Test(arguments: [1, 2])
        func `a completion is interrupted at the end of its gateway`(signals: Int) async throws {
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
                _ = try await gateway.ended()
                _ = await call.result
                let request = try await lab.endedRequest(model: model)
                #expect(request.end == .clientClosed && request.tokens < 2_000)
                try await until("its record") { try await lab.record(request.tag)["reason"] == "CLIENT_GONE" }
            }
        }
    }
}
