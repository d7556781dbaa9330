/// What this executable is: shown by `--version`, in the start-up line, in heartbeats and as `sluice_build_info`.
package enum Build {
    package static let version = "0.1.0"

    #if DEBUG
        package static let configuration = "debug"
    #else
        package static let configuration = "release"
    #endif
}
