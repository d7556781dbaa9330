import Contract
import Dispatch
import JSONCodec
import Logging
import Synchronization
import Testing

@testable import Observability

@Suite("Log lines")
struct LogLineTests {
    private let time = Timestamp(milliseconds: 1_795_356_000_123)

    private func render(_ format: LogFormat, _ message: String, _ metadata: Logger.Metadata = [:], level: Logger.Level = .info) -> String {
        String(decoding: LogLine(time: time, level: level, message: message, metadata: metadata).render(format), as: UTF8.self)
    }

    @Test func `lines in the text format`() {
        #expect(render(.text, "message", ["key": "value"]) == "2026-11-22T14:00:00.123Z info  message key=value\n")
        #expect(render(.text, "gone", level: .warning) == "2026-11-22T14:00:00.123Z warning gone\n")
        #expect(
            render(.text, "m", ["b": "a b", "a": "", "c": "x=\"y\"", "d": ["1", "2"]])
                == "2026-11-22T14:00:00.123Z info  m a=\"\" b=\"a b\" c=\"x=\\\"y\\\"\" d=\"[\\\"1\\\", \\\"2\\\"]\"\n")
    }

    @Test func `lines in the JSON format`() throws {
        let line = render(
            .json, "he said \"hi\"", ["job": "p0-1", "level": "mine", "list": ["a", .stringConvertible(2)], "map": ["x": "y"]])
        let json = try JSON(parsing: line)
        #expect(json["time"]?.string == "2026-11-22T14:00:00.123Z")
        #expect(json["level"]?.string == "info")
        #expect(json["level_"]?.string == "mine")
        #expect(json["message"]?.string == "he said \"hi\"")
        #expect(json["job"]?.string == "p0-1")
        #expect(json["list"] == ["a", "2"])
        #expect(json["map"]?["x"]?.string == "y")
    }

    /// Text of a client in a log line must not start a new line or contain control characters.
    @Test(arguments: LogFormat.allCases)
    func `values cannot break a line`(format: LogFormat) throws {
        let hostile = "a\nb\r\u{1B}[2J\u{7F}\u{85}\u{2028}\u{0}\u{202E}\u{2067}\u{200F}c"
        let line = render(format, hostile, [hostile: .string(hostile)])
        #expect(line.unicodeScalars.count { $0 == "\n" } == 1)
        #expect(line.hasSuffix("\n"))
        let steers = line.dropLast().unicodeScalars.contains { $0.steersTerminal }
        #expect(!steers)
        if format == .json { #expect(try JSON(parsing: line)["message"]?.string == hostile) }
    }

    @Test(arguments: LogFormat.allCases)
    func `long values are truncated`(format: LogFormat) {
        let line = render(format, "m", ["long": .string(String(repeating: "é", count: 1_000_000))])
        #expect((1_024..<1_200).contains(line.utf8.count))
        #expect(line.contains("é…"))
        // A few characters of many bytes each, in the message, a name and a value.
        let stacked = "e" + String(repeating: "\u{301}", count: 400_000)
        #expect(render(format, stacked, [stacked: .string(stacked)]).utf8.count < 3_500)
    }

    @Test(
        arguments: [
            (.min, "0000-01-01T00:00:00.000Z"), (.max, "9999-12-31T23:59:59.999Z"), (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"), (951_782_400_007, "2000-02-29T00:00:00.007Z"),
        ]
            as [(Int64, String)])
    func `timestamps are in UTC with milliseconds`(milliseconds: Int64, text: String) {
        #expect(Timestamp(milliseconds: milliseconds).description == text)
    }

    /// Logging never blocks: while a write does not return, each line is either kept or counted as dropped.
    @Test func `an unread log drops lines, counts them and reports them once`() {
        let (entered, gate) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let isOpen = Atomic<Bool>(false)
        let written = Mutex<[String]>([])
        let drops = Atomic<Int>(0)
        let writer = LogWriter(
            format: .text, maximumSize: 1_000,
            write: { line in
                if !isOpen.load(ordering: .acquiring) {
                    entered.signal()
                    gate.wait()
                }
                written.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
                return true
            }, onDrop: { drops.wrappingAdd(1, ordering: .relaxed) })
        writer.start()
        let line = [UInt8](repeating: UInt8(ascii: "x"), count: 100)
        writer.append(line)
        entered.wait()
        for _ in 0..<99 { writer.append(line) }
        // The thread has taken one line, and the buffer holds ten.
        let dropped = drops.load(ordering: .relaxed)
        #expect(dropped == 89)
        isOpen.store(true, ordering: .releasing)
        gate.signal()
        writer.flush()
        let lines = written.withLock { $0 }
        #expect(lines.count { $0.hasPrefix("xxx") } == 100 - dropped)
        #expect(lines.filter { $0.contains("log lines dropped") }.map { $0.hasSuffix("lines=\(dropped)\n") } == [true])
        writer.append(Array("after\n".utf8))
        writer.flush()
        #expect(written.withLock { $0.last } == "after\n")
    }

    @Test func `the innermost metadata takes precedence`() {
        let lines = Mutex<[String]>([])
        let provider = Logger.MetadataProvider { ["a": "provider", "b": "provider", "c": "provider"] }
        var logger = Logger(label: "test") { _ in
            StandardErrorLog(format: .text, level: .info, metadataProvider: provider) { line in
                lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
            }
        }
        logger[metadataKey: "a"] = "logger"
        logger[metadataKey: "d"] = "logger"
        logger.info("m", metadata: ["b": "call"])
        logger.debug("not this")
        #expect(lines.withLock { $0.map { $0.dropFirst(25) } } == ["info  m a=provider b=call c=provider d=logger\n"])
    }
}
