import Logging
import ServiceLifecycle
import UnixSignals
import Upstream
import Worker

/// Reloads `SLUICE_UPSTREAMS_FILE` at SIGHUP. A file with faults is rejected as a whole.
struct UpstreamsReload: Service {
    /// Nil: the setting is unset, and SIGHUP only logs a warning.
    let path: String?
    /// The environment that an upstream's `key_env` refers to.
    let environment: [String: String]
    let feed: UpstreamsFeed
    let logger: Logger

    func run() async throws {
        for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() { reload() }
    }

    /// Reads the file and replaces the worker's upstreams.
    private func reload() {
        guard let path else { return logger.warning("nothing to reload: SLUICE_UPSTREAMS_FILE is not set") }
        let file = UpstreamsFile(path: path, environment: environment)
        guard file.faults.isEmpty else {
            for fault in file.faults { logger.error("fault in the upstreams file", metadata: ["fault": "\(fault)"]) }
            return logger.error("upstreams reload failed; the previous ones stay in use", metadata: ["faults": "\(file.faults.count)"])
        }
        feed.replace(file.upstreams)
        logger.info("upstreams reloaded", metadata: ["upstreams": "\(file.upstreams.map(\.name).joined(separator: ", "))"])
    }
}
