import NIOCore
import Testing

@testable import RedisClient

@Suite struct HandshakeTests {
    private static func run(_ url: String, _ replies: [RESPValue]) throws -> (commands: Int, outcome: String) {
        var handshake = Handshake(url: try RedisURL(url), name: "n")
        var outcome = "waits"
        for reply in replies {
            switch handshake.received(reply) {
            case .wait: outcome = "waits"
            case .connected: outcome = "connected"
            case .refused(let error): outcome = "\(error.code): \(error.message)"
            }
        }
        return (handshake.request.count, outcome)
    }

    private static let ok = RESPValue.simple("OK")
    private static let pong = RESPValue.simple("PONG")

    @Test(
        arguments: [
            ("redis://h", [ok, pong], 2, "connected"), ("redis://h", [ok], 2, "waits"),
            ("redis://:p@h/1", [ok, ok, ok, pong], 4, "connected"),
            ("redis://h", [.error("NOPERM no setname"), pong], 2, "connected"),
            ("redis://h", [ok, .error("NOPERM no ping")], 2, "connected"),
            ("redis://h", [ok, .error("LOADING wait")], 2, "unavailable: LOADING wait"),
            ("redis://h", [ok, .error("MASTERDOWN no")], 2, "unavailable: MASTERDOWN no"),
            (
                "redis://h", [.error("NOAUTH x"), .error("NOAUTH x")], 2,
                "server: Redis requires a password and redis://h:6379/0 has none: NOAUTH x"
            ),
            ("redis://u:p@h", [.error("WRONGPASS x")], 3, "server: Redis rejected the user or password of redis://u@h:6379/0: WRONGPASS x"),
            (
                "redis://h/99", [.error("ERR DB index is out of range")], 3,
                "server: Redis rejected database 99: ERR DB index is out of range"
            ),
        ] as [(String, [RESPValue], Int, String)])
    func `replies to the handshake`(_ url: String, _ replies: [RESPValue], _ commands: Int, _ outcome: String) throws {
        let (count, seen) = try Self.run(url, replies)
        #expect(count == commands)
        #expect(seen == outcome)
    }
}
