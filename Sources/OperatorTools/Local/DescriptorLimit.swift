import Glibc

/// The limit of open files of this process.
package enum DescriptorLimit {
    /// Raises the soft limit of file descriptors to the hard limit. Every client and every upstream connection uses a descriptor.
    /// - Returns: the resulting limit; 0: unknown.
    @discardableResult
    package static func raise() -> UInt64 {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return 0 }
        if limit.rlim_cur < limit.rlim_max {
            let before = limit.rlim_cur
            limit.rlim_cur = limit.rlim_max
            if setrlimit(resource, &limit) != 0 { limit.rlim_cur = before }
        }
        return UInt64(limit.rlim_cur)
    }
}
