import CoreMetrics
import Glibc
import Logging
import Synchronization

/// A log handler that renders each event as a line and passes it to the process's `LogWriter`.
package struct StandardErrorLog: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    package var logLevel: Logger.Level

    private let format: LogFormat
    private let write: @Sendable ([UInt8]) -> Void

    init(
        format: LogFormat, level: Logger.Level, metadataProvider: Logger.MetadataProvider? = nil,
        write: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.format = format
        logLevel = level
        self.metadataProvider = metadataProvider
        self.write = write
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes one line. For a key with several values, the value of the call has precedence, then that of the metadata provider, then that of
    /// the logger.
    package func log(event: LogEvent) {
        var merged = metadata
        if let provided = metadataProvider?.get() { merged.merge(provided) { _, new in new } }
        if let callMetadata = event.metadata { merged.merge(callMetadata) { _, new in new } }
        if let error = event.error, merged["error"] == nil { merged["error"] = "\(error)" }
        write(LogLine(time: .now, level: event.level, message: event.message.description, metadata: merged).render(format))
    }
}

/// Start of logging and metrics.
package enum Telemetry {
    private static let writer = Mutex<LogWriter?>(nil)

    /// Installs the backends of swift-log and swift-metrics. Call it once per process, before the first logger or metric is created.
    package static func start(logLevel: Logger.Level, logFormat: LogFormat) {
        startMetrics()
        let dropped = Counter(label: "sluice_log_lines_dropped_total")
        dropped.increment(by: 0)
        let log = LogWriter(format: logFormat) { dropped.increment() }
        log.start()
        writer.withLock { $0 = log }
        LoggingSystem.bootstrap(
            { _, provider in
                StandardErrorLog(format: logFormat, level: logLevel, metadataProvider: provider) { log.append($0) }
            }, metadataProvider: nil)
        atexit { Telemetry.flush() }
    }

    /// Waits until the log is written, at most a second. Called at the end of the process, except by `_exit`.
    package static func flush() { writer.withLock { $0 }?.flush() }
}
