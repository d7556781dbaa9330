/// Version and configuration of this executable, shown by `--version`, in the start-up log line, in heartbeats and in `sluice_build_info`.
package enum Build {
    package static let version = "0.1.0"

    #if DEBUG
        package static let configuration = "debug"
    #else
        package static let configuration = "release"
    #endif
}
