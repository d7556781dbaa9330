/// The version of this build, as heartbeats, logs and `--version` tell it.
package enum Version {
    package static let current = "0.1.0"
}
