import NIOConcurrencyHelpers
import NIOSSL

/// The listener's certificate and key, which may be read again while it runs.
final class CertificateBox: Sendable {
    private let certificateFile: String
    private let keyFile: String
    private let box: NIOLockedValueBox<NIOSSLContext>

    /// - Throws: what NIOSSL says of files that are not there or not PEM.
    init(certificateFile: String, keyFile: String) throws {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        box = NIOLockedValueBox(try Self.read(certificateFile, keyFile))
    }

    var context: NIOSSLContext { box.withLockedValue { $0 } }

    /// New connections get what the files hold now; on an error the old one stays.
    func reload() throws {
        let context = try Self.read(certificateFile, keyFile)
        box.withLockedValue { $0 = context }
    }

    private static func read(_ certificateFile: String, _ keyFile: String) throws -> NIOSSLContext {
        let chain = try NIOSSLCertificate.fromPEMFile(certificateFile).map { NIOSSLCertificateSource.certificate($0) }
        let key = try NIOSSLPrivateKey(file: keyFile, format: .pem)
        var configuration = TLSConfiguration.makeServerConfiguration(certificateChain: chain, privateKey: .privateKey(key))
        // RFC 8996 deprecates the versions below.
        configuration.minimumTLSVersion = .tlsv12
        return try NIOSSLContext(configuration: configuration)
    }
}
