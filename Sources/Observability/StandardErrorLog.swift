import Glibc
import Logging

/// Writes each log line to standard error with one write(2), so that lines of several threads and processes on one pipe do not mix.
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

    /// Of a key that several say, the call's own value counts, then the provider's, then the logger's.
    package func log(event: LogEvent) {
        var facts = metadata
        if let provided = metadataProvider?.get() { facts.merge(provided) { _, new in new } }
        if let own = event.metadata { facts.merge(own) { _, new in new } }
        if let error = event.error, facts["error"] == nil { facts["error"] = "\(error)" }
        write(LogLine(time: .now, level: event.level, message: event.message.description, metadata: facts).render(format))
    }

    /// Nobody can be told when standard error is gone; the line is lost then.
    private static func writeToStandardError(_ line: [UInt8]) {
        line.withUnsafeBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let written = Glibc.write(STDERR_FILENO, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if written > 0 { rest = rest.dropFirst(written) } else if errno != EINTR { return }
            }
        }
    }
}

package enum Telemetry {
    /// Sends swift-log and swift-metrics here. Once a process, before the first logger or metric is made.
    package static func start(logLevel: Logger.Level, logFormat: LogFormat) {
        LoggingSystem.bootstrap(
            { _, provider in StandardErrorLog(format: logFormat, level: logLevel, metadataProvider: provider) }, metadataProvider: nil)
        startMetrics()
    }
}
