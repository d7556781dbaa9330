import NIOConcurrencyHelpers
import NIOSSL

/// The listener's certificate and private key, reloadable at run time. Thread-safe.
final class CertificateBox: Sendable {
    private let certificateFile: String
    private let keyFile: String
    private let box: NIOLockedValueBox<NIOSSLContext>

    /// Reads both PEM files.
    /// - Throws: NIOSSL's error when a file is missing or is not valid PEM.
    init(certificateFile: String, keyFile: String) throws {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        box = NIOLockedValueBox(try Self.read(certificateFile, keyFile))
    }

    /// The TLS context for new connections.
    var context: NIOSSLContext { box.withLockedValue { $0 } }

    /// Reads the files again; new connections use the new certificate.
    /// - Throws: as `init`; the previous certificate stays in use then.
    func reload() throws {
        let context = try Self.read(certificateFile, keyFile)
        box.withLockedValue { $0 = context }
    }

    private static func read(_ certificateFile: String, _ keyFile: String) throws -> NIOSSLContext {
        let chain = try NIOSSLCertificate.fromPEMFile(certificateFile).map { NIOSSLCertificateSource.certificate($0) }
        let key = try NIOSSLPrivateKey(file: keyFile, format: .pem)
        var configuration = TLSConfiguration.makeServerConfiguration(certificateChain: chain, privateKey: .privateKey(key))
        // RFC 8996 deprecates TLS 1.0 and 1.1.
        configuration.minimumTLSVersion = .tlsv12
        return try NIOSSLContext(configuration: configuration)
    }
}
