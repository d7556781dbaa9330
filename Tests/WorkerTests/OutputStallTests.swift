import Contract
import Testing

@testable import Worker

@Suite struct OutputStallTests {
    /// The result of each renewal, at these times and with these newest written events; a limit of 5 ns.
    private func results(_ renewals: [(now: UInt64, written: Int, hasUnwritten: Bool)]) -> [Bool] {
        var stall = OutputStall()
        return renewals.map { renewal in
            stall.isStalled(
                hasUnwritten: renewal.hasUnwritten, written: EventID(attempt: 1, sequence: renewal.written), now: renewal.now, limit: 5)
        }
    }

    @Test func `output that waits for the limit is stalled, once for each limit`() {
        let times: [UInt64] = [100, 104, 105, 106, 110, 111]
        #expect(results(times.map { ($0, 3, true) }) == [false, false, true, false, false, true])
    }

    @Test func `output that is written in between is not stalled`() {
        let found = results([(100, 3, true), (110, 4, true), (120, 5, false), (130, 5, true), (140, 5, true)])
        #expect(found == [false, false, false, false, true])
    }
}
