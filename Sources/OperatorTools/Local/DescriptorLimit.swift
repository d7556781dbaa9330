import Glibc
import Support

/// The limit of open files of this process.
package enum DescriptorLimit {
    /// Raises the soft limit of file descriptors to the hard limit. Every client and every upstream connection uses a descriptor.
    /// - Parameter wanted: also raises the hard limit to this number if it is lower, which needs a privilege.
    /// - Returns: the resulting limit; 0: unknown.
    @discardableResult
    package static func raise(to wanted: UInt64 = 0) -> UInt64 {
        guard var limit = SystemCalls.descriptorLimit else { return 0 }
        if limit.rlim_max < wanted {
            var higher = limit
            higher.rlim_cur = rlim_t(wanted)
            higher.rlim_max = rlim_t(wanted)
            if SystemCalls.setDescriptorLimit(higher) { return wanted }
        }
        if limit.rlim_cur < limit.rlim_max {
            let before = limit.rlim_cur
            limit.rlim_cur = limit.rlim_max
            if !SystemCalls.setDescriptorLimit(limit) { limit.rlim_cur = before }
        }
        return UInt64(limit.rlim_cur)
    }
}
