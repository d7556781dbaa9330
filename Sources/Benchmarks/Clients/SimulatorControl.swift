import JSONCodec
import NIOCore
import NIOPosix
import OperatorTools

/// A client of the simulator's list of requests.
struct SimulatorControl: Sendable {
    let address: ListenAddress

    /// One request. Times are CLOCK_MONOTONIC ns.
    struct Request: Sendable {
        let tag: String
        let path: String
        let tokens: Int
        let accepted: UInt64
        let firstToken: UInt64?
        /// When the simulator noticed that its client had closed the connection.
        let clientLeft: UInt64?
        let ended: UInt64?
    }

    /// The requests that the simulator remembers.
    /// - Parameters:
    ///   - tag: only requests of this job; nil: all.
    ///   - since: only requests accepted since then, CLOCK_MONOTONIC ns.
    func requests(tag: String? = nil, since: UInt64 = 0) async throws -> [Request] {
        let query = "since=\(since)" + (tag.map { "&tag=\($0)" } ?? "")
        let json = try await get("/sim/requests?\(query)")
        return (json["requests"]?.array ?? []).compactMap { item in
            guard let tag = item["tag"]?.string, let tokens = item["tokens"]?.integer, let accepted = item["accept_ns"]?.integer else {
                return nil
            }
            func time(_ name: String) -> UInt64? { item[name]?.integer.map { UInt64($0) } }
            return Request(
                tag: tag, path: item["path"]?.string ?? "", tokens: tokens, accepted: UInt64(accepted), firstToken: time("first_token_ns"),
                clientLeft: time("client_left_ns"),
                ended: time("end_ns"))
        }
    }

    /// Clears the list, so that it contains only requests of the measurement.
    func clear() async throws { _ = try await ask("DELETE", "/sim/requests") }

    private func get(_ path: String) async throws -> JSON { try await ask("GET", path) }

    private func ask(_ method: String, _ path: String) async throws -> JSON {
        let request = "\(method) \(path) HTTP/1.1\r\nHost: \(address)\r\nConnection: close\r\n\r\n"
        do {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(2))
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                    }
                }
            let answer = try await channel.executeThenClose { inbound, outbound in
                try await outbound.write(ByteBuffer(string: request))
                var answer = ByteBuffer()
                for try await var bytes in inbound { answer.writeBuffer(&bytes) }
                return answer
            }
            let bytes = answer.readableBytesView
            guard let body = bytes.firstRange(of: Array("\r\n\r\n".utf8))?.upperBound else { throw NotASimulator() }
            // Ten thousand streams are more values than the strict rules allow.
            return try JSON(parsing: bytes[body...], rules: .lenient)
        } catch {
            throw CommandFailure(
                .unavailable,
                "sluice: no simulator answers at \(address): \(error) (sluice simulate runs one; --simulator sets its address)")
        }
    }

    private struct NotASimulator: Error, CustomStringConvertible {
        let description = "the answer is not HTTP"
    }
}
