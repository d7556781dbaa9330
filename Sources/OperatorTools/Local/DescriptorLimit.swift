import Glibc
import Support

/// The limit of open files of this process.
package enum DescriptorLimit {
    /// Raises the soft limit of file descriptors to the hard limit. Every client and every upstream connection uses a descriptor.
    /// - Returns: the resulting limit; 0: unknown.
    @discardableResult
    package static func raise() -> UInt64 {
        guard var limit = SystemCalls.descriptorLimit else { return 0 }
        if limit.rlim_cur < limit.rlim_max {
            let before = limit.rlim_cur
            limit.rlim_cur = limit.rlim_max
            if !SystemCalls.setDescriptorLimit(limit) { limit.rlim_cur = before }
        }
        return UInt64(limit.rlim_cur)
    }
}
