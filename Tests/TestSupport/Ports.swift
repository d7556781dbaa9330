import Foundation
import Synchronization

/// Free ports of the loopback address.
package enum Ports {
    private static let given = Mutex<Set<Int>>([])

    /// A port that is currently free and is returned only once in this process.
    ///
    /// The port is below the kernel's range of ephemeral ports (32768…), so that no outgoing connection can occupy it before the server
    /// starts.
    package static func free() -> Int {
        while true {
            let port = Int.random(in: 15_000..<32_000)
            guard given.withLock({ $0.insert(port).inserted }) else { continue }
            if canBind(port) { return port }
        }
    }

    private static func canBind(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
