import NIOCore
import Testing

@testable import RedisClient

/// Hash slots, topologies, and the state machine that routes commands, without a network.
@Suite struct ClusterRoutingTests {
    /// Redis Cluster specification, "Hash tags"; slots as returned by CLUSTER KEYSLOT.
    @Test(arguments: [
        ("123456789", 0x31C3), ("foo", 12_182), ("{user1000}.following", 3_443), ("{user1000}.followers", 3_443), ("foo{}{bar}", 8_363),
        ("foo{{bar}}zap", 4_015), ("foo{bar}{zap}", 5_061), ("bar", 5_061), ("", 0), ("{", 4_092), ("{sluice.0}:queue:batch", 3_866),
    ])
    func `slots of keys`(key: String, slot: Int) {
        #expect(HashSlot.of(key) == slot)
        if let open = key.firstIndex(of: "{"), let close = key[open...].firstIndex(of: "}"), key.index(after: open) < close {
            #expect(HashSlot.of(String(key[key.index(after: open)..<close])) == slot)
        }
    }

    static let a = ServerAddress(host: "a", port: 1)
    static let b = ServerAddress(host: "b", port: 2)

    private static func node(_ host: String, _ port: Int) -> RESPValue {
        .array([.bulk(ByteBuffer(string: host)), .integer(Int64(port)), .bulk(ByteBuffer(string: "id"))])
    }

    private static func topology(_ ranges: (Int, Int, String, Int)...) -> ClusterTopology {
        ClusterTopology(
            .array(ranges.map { .array([.integer(Int64($0.0)), .integer(Int64($0.1)), node($0.2, $0.3)]) }), from: "asked")
            ?? ClusterTopology()
    }

    /// Slots 0 to 99 at a, 200 to 299 at b.
    static let topology = topology((0, 99, "a", 1), (200, 299, "b", 2))

    @Test func `a topology with holes`() {
        var topology = Self.topology
        #expect(topology.owner(of: 0) == Self.a && topology.owner(of: 299) == Self.b && topology.owner(of: 100) == nil)
        #expect(topology.uncovered == HashSlot.count - 200)
        #expect(topology.slots(of: 0) == [0...99])
        let old = topology
        let moves = [
            topology.move(50, to: Self.b), topology.move(50, to: Self.b), topology.move(HashSlot.count, to: Self.a),
        ]
        #expect(moves == [true, false, false] && topology.owner(of: 50) == Self.b)
        #expect(topology.changedSlots(from: old) == [50] && topology.slots(of: 1) == [50...50, 200...299])
        let isNew = topology.move(100, to: ServerAddress(host: "c", port: 3))
        #expect(isNew && topology.nodes.count == 3)
    }

    @Test func `hosts that a node does not announce are the asked one`() {
        let replies: [RESPValue] = [Self.node("", 1), Self.node("?", 1), .array([.null, .integer(1), .null])]
        for node in replies {
            let topology = ClusterTopology(.array([.array([.integer(0), .integer(1), node])]), from: "asked")
            #expect(topology?.owner(of: 1) == ServerAddress(host: "asked", port: 1))
        }
        #expect(Redirection("MOVED 3 :7", from: "asked")?.address == ServerAddress(host: "asked", port: 7))
        #expect(Redirection("ASK 3 ::1:7", from: "asked")?.address == ServerAddress(host: "::1", port: 7))
    }

    @Test(arguments: [
        RESPValue.null, .error("ERR This instance has cluster support disabled"), .array([]), .array([.integer(1)]),
        .array([.array([.integer(5), .integer(4), node("a", 1)])]), .array([.array([.integer(0), .integer(16_384), node("a", 1)])]),
        .array([.array([.integer(0), .integer(1), node("a", 0)])]), .array([.array([.integer(-1), .integer(1), node("a", 1)])]),
    ])
    func `other replies are no topology`(reply: RESPValue) { #expect(ClusterTopology(reply, from: "asked") == nil) }

    @Test(arguments: [
        "MOVED", "MOVED 1", "MOVED x a:1", "MOVED 16384 a:1", "MOVED -1 a:1", "MOVED 1 a", "MOVED 1 a:0", "MOVED 1 a:99999", "ERR",
    ])
    func `other texts are no redirection`(text: String) { #expect(Redirection(text, from: "asked") == nil) }

    @Test func `the slots of commands`() {
        var pipeline = RedisPipeline()
        pipeline.append("PING")
        pipeline.append("GET", "foo")
        pipeline.append("EVALSHA", "abc", 2, "{bar}1", "{bar}2", "{foo}")
        pipeline.append("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "{foo}q", ">")
        pipeline.append("XINFO", "GROUPS", "bar")
        pipeline.append("SPUBLISH", "foo", "\r\n$3\r\nbar")
        pipeline.append("EVAL", "return 1", 0)
        let commands = CommandSlots(pipeline).commands
        let (foo, bar) = (HashSlot.of("foo"), HashSlot.of("bar"))
        #expect(commands.map(\.slot) == [nil, foo, bar, foo, bar, foo, nil])
        #expect(commands.first?.bytes == 0..<14 && commands.last?.bytes.upperBound == pipeline.bytes.count)
    }

    @Test func `a sharded pipeline publishes to sharded channels`() {
        let script = RedisScript(name: "s", source: "redis.call('PUBLISH', KEYS[1], 'x')")
        var pipeline = RedisPipeline(isSharded: true)
        pipeline.append("PUBLISH", "c", "m")
        pipeline.append(script, keys: ["c"], arguments: [], isLoaded: false)
        let text = String(decoding: pipeline.bytes, as: UTF8.self)
        #expect(text.contains("\r\nSPUBLISH\r\n") && text.contains("call('SPUBLISH', KEYS") && !text.contains("'PUBLISH'"))
        #expect(script.digest != script.shardedDigest)
    }

    // MARK: routing

    private static func moved(_ slot: Int, _ address: ServerAddress) -> RESPValue { .error("MOVED \(slot) \(address)") }

    @Test func `commands are grouped by node, and replies keep their order`() {
        var routing = ClusterRouting(slots: [nil, 1, 201, nil, 2], isPinned: false)
        #expect(routing.resume(Self.topology) == [.send([0, 1, 4], to: Self.a, asking: false), .send([2, 3], to: Self.b, asking: false)])
        #expect(routing.received([.integer(2), .integer(3)], to: [2, 3], from: Self.b) == [])
        #expect(
            routing.received([.integer(0), .integer(1), .integer(4)], to: [0, 1, 4], from: Self.a)
                == [.finish(.success((0...4).map { .integer($0) }))])
    }

    @Test func `MOVED is followed at once, and only by what was not executed`() throws {
        var routing = ClusterRouting(slots: [1, 2], isPinned: false)
        _ = routing.resume(Self.topology)
        let redirection = try #require(Redirection("MOVED 2 \(Self.b)", from: "a"))
        #expect(
            routing.received([.integer(1), Self.moved(2, Self.b)], to: [0, 1], from: Self.a)
                == [.move(redirection), .refresh, .send([1], to: Self.b, asking: false)])
        #expect(routing.received([.integer(2)], to: [1], from: Self.b) == [.finish(.success([.integer(1), .integer(2)]))])
    }

    @Test func `ASK is followed for this command alone`() {
        var routing = ClusterRouting(slots: [1, 1], isPinned: true)
        _ = routing.resume(Self.topology)
        #expect(
            routing.received([.error("ASK 1 \(Self.b)"), .integer(2)], to: [0, 1], from: Self.a) == [.send([0], to: Self.b, asking: true)])
        #expect(routing.received([.integer(1)], to: [0], from: Self.b) == [.finish(.success([.integer(1), .integer(2)]))])
    }

    @Test(arguments: ["TRYAGAIN Multiple keys request during rehashing of slot", "LOADING Redis is loading", "NOREPLICAS Not enough"])
    func `a command that cannot be executed yet waits`(text: String) {
        var routing = ClusterRouting(slots: [1], isPinned: false)
        _ = routing.resume(Self.topology)
        for attempt in 0..<3 {
            #expect(routing.received([.error(text)], to: [0], from: Self.a) == [.wait(attempt: attempt)])
            #expect(routing.resume(Self.topology) == [.send([0], to: Self.a, asking: false)])
        }
        #expect(routing.refusal == text)
        #expect(routing.received([.integer(1)], to: [0], from: Self.a) == [.finish(.success([.integer(1)]))])
    }

    @Test func `nodes that name each other are not followed without a wait`() {
        var routing = ClusterRouting(slots: [1], isPinned: false)
        _ = routing.resume(Self.topology)
        var sends = 0
        var actions: [ClusterRouting.Action] = []
        for step in 0..<20 {
            let from = step.isMultiple(of: 2) ? Self.a : Self.b
            actions = routing.received([Self.moved(1, step.isMultiple(of: 2) ? Self.b : Self.a)], to: [0], from: from)
            guard actions.contains(where: { if case .send = $0 { true } else { false } }) else { break }
            sends += 1
        }
        #expect(sends == ClusterRouting.promptRedirections)
        #expect(actions.last == .wait(attempt: 0))
        let error = RedisError(.unavailable, "deadline")
        #expect(routing.giveUp(error) == [.finish(.failure(error))])
    }

    @Test func `a slot without a node waits, the others do not`() {
        var routing = ClusterRouting(slots: [1, 150], isPinned: false)
        #expect(routing.resume(Self.topology) == [.send([0], to: Self.a, asking: false), .refresh, .wait(attempt: 0)])
        #expect(routing.received([.integer(1)], to: [0], from: Self.a) == [])
        #expect(routing.resume(Self.topology((100, 199, "b", 2))) == [.send([1], to: Self.b, asking: false)])
        #expect(routing.received([.integer(2)], to: [1], from: Self.b) == [.finish(.success([.integer(1), .integer(2)]))])
    }

    @Test func `what was not sent is sent elsewhere, what may have been executed is not`() {
        var routing = ClusterRouting(slots: [1], isPinned: false)
        _ = routing.resume(Self.topology)
        #expect(routing.failed(RedisError(.unavailable, "released"), commands: [0], isExpired: false) == [.refresh, .wait(attempt: 0)])
        #expect(routing.resume(Self.topology((0, 99, "b", 2))) == [.send([0], to: Self.b, asking: false)])
        let lost = RedisError(.connectionLost, "lost")
        #expect(routing.failed(lost, commands: [0], isExpired: false) == [.finish(.failure(lost))])
    }

    @Test func `a shard that fails does not conceal the replies of the others`() {
        var routing = ClusterRouting(slots: [1, 201], isPinned: false)
        _ = routing.resume(Self.topology)
        #expect(routing.failed(RedisError(.timeout, "late"), commands: [0], isExpired: true) == [])
        guard case .finish(.success(let replies))? = routing.received([.integer(2)], to: [1], from: Self.b).last else {
            Issue.record("not finished")
            return
        }
        #expect(replies.map(\.isUnavailable) == [true, false])
    }

    /// A node that has become a replica may be behind the new primary.
    @Test func `what is bound to a connection does not follow MOVED`() {
        var routing = ClusterRouting(slots: [1], isPinned: true)
        _ = routing.resume(Self.topology)
        let reply = Self.moved(1, Self.b)
        #expect(routing.received([reply], to: [0], from: Self.a).last == .finish(.success([reply])))
    }
}
