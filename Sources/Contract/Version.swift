/// The version of this build, as shown in heartbeats, logs and `--version`.
package enum Version {
    package static let current = "0.1.0"
}
