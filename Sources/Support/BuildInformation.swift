/// The version and configuration of this executable, as `--version`, heartbeats, logs and `sluice_build_info` report them.
package enum BuildInformation {
    package static let version = "0.1.0"

    #if DEBUG
        package static let configuration = "debug"
    #else
        package static let configuration = "release"
    #endif
}
