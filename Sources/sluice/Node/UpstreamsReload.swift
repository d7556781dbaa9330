import Logging
import ServiceLifecycle
import UnixSignals
import Upstream
import Worker

/// Reads `SLUICE_UPSTREAMS_FILE` again at SIGHUP. A file with faults changes nothing.
struct UpstreamsReload: Service {
    /// Nil: there is no such file, and SIGHUP does nothing.
    let path: String?
    /// Where an upstream's `key_env` is looked up.
    let environment: [String: String]
    let feed: UpstreamsFeed
    let logger: Logger

    func run() async throws {
        for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() { reload() }
    }

    private func reload() {
        guard let path else { return logger.warning("nothing to reload: SLUICE_UPSTREAMS_FILE is not set") }
        let file = UpstreamsFile(path: path, environment: environment)
        guard file.faults.isEmpty else {
            for fault in file.faults { logger.error("upstreams file refused", metadata: ["fault": "\(fault)"]) }
            return logger.error("upstreams not reloaded; the ones before stay", metadata: ["faults": "\(file.faults.count)"])
        }
        feed.replace(file.upstreams)
        logger.info("upstreams reloaded", metadata: ["upstreams": "\(file.upstreams.map(\.name).joined(separator: ", "))"])
    }
}
