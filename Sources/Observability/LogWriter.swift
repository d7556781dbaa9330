import Dispatch
import Glibc
import Logging
import Support
import Synchronization

/// Writes log lines from a thread of its own, so that a log that is not read never blocks the threads that log. Lines beyond the buffer are
/// dropped and counted; one line reports their number when writing works again. Thread-safe.
final class LogWriter: Sendable {
    /// Maximum size of the lines that wait, in bytes. As many bytes may be in the hands of the thread.
    static let maximumSize = 1 << 20
    /// Time that `flush` waits.
    private static let flushTimeout = DispatchTimeInterval.seconds(1)

    private struct State {
        var lines: [[UInt8]] = []
        var size = 0
        /// Lines dropped since the last report.
        var dropped = 0
        /// Whether the thread is writing, or has been woken to write.
        var isWriting = false
        /// Signalled when all lines are written.
        var flushes: [DispatchSemaphore] = []
    }

    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let format: LogFormat
    private let maximumSize: Int
    private let write: @Sendable ([UInt8]) -> Bool
    private let onDrop: @Sendable () -> Void
    private let hasThread = Atomic<Bool>(false)

    /// - Parameters:
    ///   - format: the format of the line that reports dropped lines.
    ///   - write: writes one line; may block. Returns false when the line is lost.
    ///   - onDrop: called for each line that is lost.
    init(
        format: LogFormat, maximumSize: Int = LogWriter.maximumSize,
        write: @escaping @Sendable ([UInt8]) -> Bool = LogWriter.writeToStandardError, onDrop: @escaping @Sendable () -> Void
    ) {
        self.format = format
        self.maximumSize = maximumSize
        self.write = write
        self.onDrop = onDrop
    }

    /// Starts the thread. Without it, lines are written by the threads that log.
    func start() {
        hasThread.store(SystemThread.start { self.run() } == 0, ordering: .releasing)
    }

    /// Adds a line, or drops it when the buffer is full. Does not block.
    func append(_ line: [UInt8]) {
        guard hasThread.load(ordering: .acquiring) else {
            if !write(line) { onDrop() }
            return
        }
        let (isDropped, mustWake) = state.withLock { state in
            guard line.count <= maximumSize - state.size else {
                state.dropped += 1
                return (true, false)
            }
            state.lines.append(line)
            state.size += line.count
            defer { state.isWriting = true }
            return (false, !state.isWriting)
        }
        if isDropped { onDrop() }
        if mustWake { wake.signal() }
    }

    /// Waits until all lines are written; at most a second, since a log that is not read must not prevent the end of the process.
    func flush() {
        let written = DispatchSemaphore(value: 0)
        let mustWait = state.withLock { state in
            if state.isWriting { state.flushes.append(written) }
            return state.isWriting
        }
        // A timeout is no error: what is left is not read.
        if mustWait { _ = written.wait(timeout: .now() + Self.flushTimeout) }
    }

    private func run() {
        while true {
            wake.wait()
            while let lines = take() {
                for line in lines where !write(line) { onDrop() }
            }
        }
    }

    /// The waiting lines, with a report of the lines that were dropped after them; nil when there are none.
    private func take() -> [[UInt8]]? {
        state.withLock { state in
            guard !state.lines.isEmpty || state.dropped > 0 else {
                state.isWriting = false
                for flush in state.flushes { flush.signal() }
                state.flushes = []
                return nil
            }
            var lines = state.lines
            if state.dropped > 0 {
                let report = LogLine(
                    time: .now, level: .warning, message: "log lines dropped: the log was not read in time",
                    metadata: ["lines": "\(state.dropped)"])
                lines.append(report.render(format))
            }
            state.lines = []
            state.size = 0
            state.dropped = 0
            return lines
        }
    }

    /// Writes a line with one write(2) where possible, so that lines of several processes do not mix.
    static func writeToStandardError(_ line: [UInt8]) -> Bool {
        var position = 0
        while position < line.count {
            let written = SystemCalls.write(line, from: position, to: STDERR_FILENO)
            if written > 0 {
                position += written
            } else if written < 0, errno == EAGAIN {
                // Standard error may be a pipe that another process has made non-blocking.
                SystemCalls.waitUntilWritable(STDERR_FILENO, milliseconds: 1_000)
            } else {
                return false
            }
        }
        return true
    }
}
