import FoundationEssentials
import NIOSSL
import TestSupport
import Testing

/// A temporary certificate authority and the certificates that it signs.
struct CertificateAuthority {
    private let folder: TemporaryFolder
    /// The PEM file of its certificate.
    var file: String { folder.file("ca.pem") }

    private init(_ folder: TemporaryFolder) { self.folder = folder }

    static let isPossible = Program.find("openssl") != nil

    static func with<Value>(_ body: (CertificateAuthority) async throws -> Value) async throws -> Value {
        let folder = try TemporaryFolder("authority")
        defer { folder.remove() }
        let authority = CertificateAuthority(folder)
        try await authority.openssl(
            ["req", "-x509"] + newKey("ca") + ["-out", authority.file, "-days", "2", "-subj", "/CN=a test's authority"])
        return try await body(authority)
    }

    private static func newKey(_ name: String) -> [String] {
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "\(name)-key.pem"]
    }

    private func openssl(_ arguments: [String]) async throws {
        let arguments = arguments.map { $0.hasSuffix("-key.pem") || $0.hasSuffix(".csr") ? folder.file($0) : $0 }
        let made = try await Program.run("openssl", arguments)
        try #require(made.succeeded, "openssl \(arguments): \(made.output)")
    }

    /// A server configuration with a certificate for `names` (`DNS:…`, `IP:…`).
    /// - Parameters:
    ///   - days: validity from now; negative: expired.
    ///   - protocols: ALPN protocols in order of preference.
    func server(names: String, days: Int = 2, protocols: [String] = ["http/1.1"]) async throws -> NIOSSLContext {
        let (certificate, extensions) = (folder.file("server.pem"), folder.file("server.ext"))
        try "subjectAltName=\(names)".write(toFile: extensions, atomically: true, encoding: .utf8)
        try await openssl(["req"] + Self.newKey("server") + ["-out", "server.csr", "-subj", "/CN=a test's server"])
        try await openssl([
            "x509", "-req", "-in", "server.csr", "-CA", file, "-CAkey", "ca-key.pem", "-CAcreateserial", "-out", certificate, "-days",
            "\(days)", "-extfile", extensions,
        ])
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile(certificate).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: folder.file("server-key.pem"), format: .pem)))
        configuration.applicationProtocols = protocols
        return try NIOSSLContext(configuration: configuration)
    }
}
