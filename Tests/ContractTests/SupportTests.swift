import Foundation
import Support
import TestSupport
import Testing

/// Clocks, durations, back-off, files and bounded waits.
@Suite struct SupportTests {
    @Test func `durations convert to whole units towards zero and saturate`() {
        let duration = Duration.milliseconds(1_500) + .nanoseconds(999_999)
        #expect(duration.wholeSeconds == 1 && duration.wholeMilliseconds == 1_500)
        #expect(duration.wholeMicroseconds == 1_500_999 && duration.wholeNanoseconds == 1_500_999_999)
        #expect(Duration.milliseconds(-1_500).wholeMilliseconds == -1_500 && Duration.seconds(Int64.max).wholeMilliseconds == .max)
        #expect(Duration.seconds(-1).timeoutNanoseconds == 0 && Duration.seconds(2).timeoutNanoseconds == 2_000_000_000)
        // 100 years; added to a current time it stays within the range.
        #expect(Duration.seconds(Int64.max).timeoutNanoseconds == 3_153_600_000_000_000_000)
    }

    @Test func `a back-off doubles from its first to its largest delay`() {
        var backoff = Backoff(from: .milliseconds(50), to: .milliseconds(300))
        #expect((0..<5).map { _ in backoff.next(random: 1).wholeMilliseconds } == [50, 100, 200, 300, 300])
        #expect(backoff.attempts == 5)
        backoff.reset()
        #expect(backoff.next(random: 0) == .zero && backoff.next(random: 0.5) == .milliseconds(50))
        var half = Backoff(from: .milliseconds(50), to: .seconds(2), minimumShare: 0.5)
        #expect(half.next(random: 0) == .milliseconds(25) && half.next(random: 1) == .milliseconds(100))
        #expect(Backoff.bound(from: .zero, to: .seconds(1), attempt: .max) == .zero)
        #expect(Backoff.bound(from: .seconds(5), to: .seconds(1), attempt: 0) == .seconds(1))
        #expect(Backoff.bound(from: .nanoseconds(1), to: .seconds(1), attempt: -1) == .nanoseconds(1))
    }

    @Test func `files are read up to a limit`() throws {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let path = folder.file("text")
        try Data("twelve bytes".utf8).write(to: URL(filePath: path))
        try Data([0xFF]).write(to: URL(filePath: folder.file("binary")))
        #expect(try FileContents.readText(path, limit: 12) == "twelve bytes")
        #expect(throws: FileContents.Unreadable.self) { try FileContents.read(path, limit: 11) }
        func code(_ path: String, limit: Int = 100) -> FileContents.Unreadable.Code? {
            do {
                _ = try FileContents.readText(path, limit: limit)
                return nil
            } catch { return error.code }
        }
        #expect(code(path, limit: 11) == .tooLarge && code(path + "-missing") == .system && code(folder.path) == .system)
        #expect(code(folder.file("binary")) == .notText)
    }

    @Test func `a wait ends with its task, at its deadline or with its cancellation`() async {
        #expect(await Task {}.ends(by: .now + .seconds(60)))
        let (ends, end) = AsyncStream.makeStream(of: Void.self)
        let task = Task { for await _ in ends {} }
        #expect(await !task.ends(by: .now))
        let waiting = Task { await task.ends(by: .now + .seconds(60)) }
        waiting.cancel()
        #expect(await !waiting.value)
        #expect(!task.isCancelled)
        end.finish()
        #expect(await task.ends(by: .now + .seconds(60)))
    }
}
