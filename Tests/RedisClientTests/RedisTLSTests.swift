import TestSupport
import Testing

@testable import RedisClient

/// A redis-server with a certificate of a temporary authority for `localhost` and 127.0.0.1.
@Suite struct RedisTLSTests {
    private static func openssl(_ arguments: [String], in folder: TemporaryFolder) async throws {
        let process = try ChildProcess.spawn("openssl", arguments, errors: folder.file("openssl.log"))
        #expect(await process.wait() == .exited(0), "openssl \(arguments)")
    }

    private func withTLSRedis(_ body: (_ port: Int, _ caFile: String) async throws -> Void) async throws {
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
        options.arguments = [
            "--bind", "127.0.0.1", "127.0.0.2", "--tls-port", "\(port)", "--tls-cert-file", certificate, "--tls-key-file", key,
            "--tls-ca-cert-file", certificate,
            "--tls-auth-clients", "no",
        ]
        try await withRedis(options) { _ in try await body(port, certificate) }
    }

    @Test func `certificates are verified`() async throws {
        try await withTLSRedis { port, caFile in
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

    private func refused(_ url: String, _ settings: RedisSettings, _ reason: String) async throws {
        let log = CapturedLog()
        try await withClient(url, settings: settings, log: log) { redis in
            let line = try await log.wait(for: "redis cannot be reached")
            #expect(line.metadata.lowercased().contains(reason.lowercased()), "\(line.metadata)")
            #expect(!redis.isConnected)
        }
    }
}
