import Foundation
import TestSupport
import Testing

@testable import RedisClient

/// A redis-server with a certificate of a temporary authority for `localhost` and 127.0.0.1.
@Suite struct RedisTLSTests {
    private static func openssl(_ arguments: [String], in folder: TemporaryFolder) async throws {
        let process = try ChildProcess.spawn("openssl", arguments, errors: folder.file("openssl.log"))
        #expect(await process.wait() == .exited(0), "openssl \(arguments)")
    }

    /// - Parameter arguments: further arguments of the server.
    private func withTLSRedis(
        _ arguments: [String] = ["--tls-auth-clients", "no"],
        _ body: (_ port: Int, _ certificate: String, _ key: String, _ folder: TemporaryFolder) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder("tls")
        defer { folder.remove() }
        let (key, certificate) = (folder.file("key.pem"), folder.file("certificate.pem"))
        try await Self.openssl(
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", certificate,
                "-days", "2",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ], in: folder)
        let port = Ports.free()
        var options = PrivateRedis.Options()
        options.arguments =
            [
                "--bind", "127.0.0.1", "127.0.0.2", "--tls-port", "\(port)", "--tls-cert-file", certificate, "--tls-key-file", key,
                "--tls-ca-cert-file", certificate,
            ] + arguments
        try await withRedis(options) { _ in try await body(port, certificate, key, folder) }
    }

    @Test func `certificates are verified`() async throws {
        try await withTLSRedis { port, caFile, _, _ in
            var settings = RedisSettings.forTests
            settings.caFile = caFile
            for host in ["localhost", "127.0.0.1"] {
                try await withClient("rediss://\(host):\(port)", settings: settings) { redis in
                    let large = String(repeating: "x", count: 300_000)
                    let reply = try await redis.send("ECHO", .string(large))
                    #expect(reply == .text(large))
                }
            }
            // A name that the certificate does not contain, and an authority that is not trusted.
            try await refused("rediss://127.0.0.2:\(port)", settings, "certificate")
            try await refused("rediss://localhost:\(port)", .forTests, "CERTIFICATE_VERIFY_FAILED")
            settings.caFile = "/nonexistent.pem"
            try await refused("rediss://localhost:\(port)", settings, "/nonexistent.pem")
        }
    }

    @Test func `client certificates are sent`() async throws {
        try await withTLSRedis(["--tls-auth-clients", "yes"]) { port, certificate, key, _ in
            var settings = RedisSettings.forTests
            settings.caFile = certificate
            try await refused("rediss://localhost:\(port)", settings, "certificate")
            (settings.certificateFile, settings.keyFile) = (certificate, key)
            try await withClient("rediss://localhost:\(port)", settings: settings) { redis in
                let reply = try await redis.send("PING")
                #expect(reply == .simple("PONG"))
            }
            settings.keyFile = "/nonexistent.pem"
            try await refused("rediss://localhost:\(port)", settings, "/nonexistent.pem")
        }
    }

    @Test func `sentinels and their primary with TLS`() async throws {
        try await withTLSRedis(["--tls-auth-clients", "yes", "--tls-replication", "yes"]) { port, certificate, key, folder in
            let sentinel = Ports.free()
            let file = folder.file("sentinel.conf")
            let lines = [
                "port 0", "tls-port \(sentinel)", "tls-cert-file \(certificate)", "tls-key-file \(key)", "tls-ca-cert-file \(certificate)",
                "tls-replication yes", "bind 127.0.0.1", "dir \(folder.path)", "sentinel monitor main 127.0.0.1 \(port) 1",
            ]
            try (lines.joined(separator: "\n") + "\n").write(toFile: file, atomically: true, encoding: .utf8)
            let process = try ChildProcess.spawn("redis-server", [file, "--sentinel"], errors: folder.file("sentinel.log"))
            var settings = RedisSettings.forTests
            (settings.caFile, settings.certificateFile, settings.keyFile) = (certificate, certificate, key)
            try await withClient("rediss+sentinel://localhost:\(sentinel)/main", settings: settings) { redis in
                let reply = try await redis.send("SET", "k", "v")
                #expect(reply == .simple("OK"))
                #expect(redis.server == "127.0.0.1:\(port)")
            }
            await process.destroy()
        }
    }

    private func refused(_ url: String, _ settings: RedisSettings, _ reason: String) async throws {
        let log = CapturedLog()
        try await withClient(url, settings: settings, log: log) { redis in
            let line = try await log.wait(for: "redis cannot be reached")
            #expect(line.metadata.lowercased().contains(reason.lowercased()), "\(line.metadata)")
            #expect(!redis.isConnected)
        }
    }
}
