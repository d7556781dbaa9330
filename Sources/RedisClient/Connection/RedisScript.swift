import Crypto
import Support

/// A Lua script that is called by its digest.
package struct RedisScript: Sendable, Hashable {
    /// For logs.
    package let name: String
    package let source: String
    /// SHA-1 of the source, in hexadecimal.
    package let digest: String

    package init(name: String, source: String) {
        self.name = name
        self.source = source
        // EVALSHA identifies scripts by SHA-1; security does not depend on it.
        digest = Insecure.SHA1.hash(data: Array(source.utf8)).hexadecimal
    }
}
