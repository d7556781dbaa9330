import Synchronization
import Testing

@testable import Gateway

/// The order in which large HTTP bodies are parsed.
@Suite(.timeLimit(.minutes(1))) struct ParsingTurnTests {
    private static let large = ParsingTurns.smallSize + 1

    @Test func `one large body of a tenant is parsed at a time, small ones and those of others at once`() async throws {
        let turns = ParsingTurns()
        // The body runs synchronously, so that nothing else can end its turn while these tasks are started.
        let (waiting, order) = await turns.run(Self.large, of: "a") {
            let order = Order()
            var waiting: [Task<Void, Never>] = []
            for number in 0..<3 {
                waiting.append(Task.immediate { await turns.run(Self.large, of: "a") { order.add("a\(number)") } })
            }
            waiting.append(Task.immediate { await turns.run(Self.large, of: "b") { order.add("b") } })
            waiting.append(Task.immediate { await turns.run(ParsingTurns.smallSize, of: "a") { order.add("small") } })
            #expect(order.names == ["b", "small"] && turns.waiting(of: "a") == 3)
            return (waiting, order)
        }
        for task in waiting { await task.value }
        #expect(order.names == ["b", "small", "a0", "a1", "a2"])
        #expect(turns.waiting(of: "a") == nil && turns.waiting(of: "b") == nil)
    }

    @Test func `a body that fails ends its turn`() async {
        let turns = ParsingTurns()
        await #expect(throws: HTTPErrorResponse.draining) {
            try await turns.run(Self.large, of: "a") { () throws(HTTPErrorResponse) in throw HTTPErrorResponse.draining }
        }
        #expect(turns.waiting(of: "a") == nil)
    }

    private final class Order: Sendable {
        private let list = Mutex<[String]>([])
        var names: [String] { list.withLock { $0 } }
        func add(_ name: String) { list.withLock { $0.append(name) } }
    }
}
