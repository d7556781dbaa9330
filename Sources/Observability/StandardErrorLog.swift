import Glibc
import Logging
import Support

/// A log handler that writes each line to standard error with one write(2), so that lines of several threads and processes do not mix.
package struct StandardErrorLog: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    package var logLevel: Logger.Level

    private let format: LogFormat
    private let write: @Sendable ([UInt8]) -> Void

    package init(format: LogFormat, level: Logger.Level, metadataProvider: Logger.MetadataProvider? = nil) {
        self.init(format: format, level: level, metadataProvider: metadataProvider, write: Self.writeToStandardError)
    }

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

    /// Writes a line. Errors lose the rest of the line, because there is no other place to report them.
    private static func writeToStandardError(_ line: [UInt8]) {
        var position = 0
        while position < line.count {
            let written = SystemCalls.write(line, from: position, to: STDERR_FILENO)
            guard written > 0 else { return }
            position += written
        }
    }
}

/// Start of logging and metrics.
package enum Telemetry {
    /// Installs the backends of swift-log and swift-metrics. Call it once per process, before the first logger or metric is created.
    package static func start(logLevel: Logger.Level, logFormat: LogFormat) {
        LoggingSystem.bootstrap(
            { _, provider in StandardErrorLog(format: logFormat, level: logLevel, metadataProvider: provider) }, metadataProvider: nil)
        startMetrics()
    }
}
