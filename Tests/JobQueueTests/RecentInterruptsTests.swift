import Contract
import NIOCore
import Testing

@testable import JobQueue

@Suite struct RecentInterruptsTests {
    private static func sent(_ number: Int, connection: Int = 1, at: NIODeadline) throws -> RecentInterrupts.Sent {
        let id = try #require(JobID("job-\(number)"))
        return RecentInterrupts.Sent(
            Interrupt(id: id, reason: InterruptReason.userStop), owner: "a", isForced: false, connection: connection, at: at)
    }

    @Test func `interrupts of earlier connections are taken once, oldest first`() throws {
        let all = RecentInterrupts()
        let now = NIODeadline.now()
        for number in 0..<6 { all.add(try Self.sent(number, connection: number % 2, at: now)) }
        #expect(all.take(at: now) { $0.connection == 0 }.map(\.interrupt.id.rawValue) == ["job-0", "job-2", "job-4"])
        #expect(all.take(at: now) { $0.connection == 0 }.isEmpty)
        #expect(all.take(at: now) { _ in true }.count == 3)
    }

    @Test func `number and age are limited`() throws {
        let all = RecentInterrupts()
        let now = NIODeadline.now()
        for number in 0..<RecentInterrupts.maximum + 10 { all.add(try Self.sent(number, at: now)) }
        let taken = all.take(at: now) { _ in true }
        #expect(taken.count == RecentInterrupts.maximum && taken.first?.interrupt.id.rawValue == "job-10")
        all.add(try Self.sent(1, at: now))
        #expect(all.take(at: now + RecentInterrupts.kept + .nanoseconds(1)) { _ in true }.isEmpty)
    }
}
