import Contract
import JSONCodec
import NIOCore
import NIOPosix

/// The simulator seen from outside: what became of each request.
struct SimulatorControl: Sendable {
    let address: ListenAddress

    struct Request: Sendable {
        let tag: String
        let tokens: Int
        let accepted: UInt64
        let firstToken: UInt64?
        /// When it noticed that its client had left, CLOCK_MONOTONIC ns.
        let clientLeft: UInt64?
        let ended: UInt64?
    }

    /// - Parameter tag: only this job's requests; nil: all that are remembered.
    func requests(tag: String? = nil, since: UInt64 = 0) async throws -> [Request] {
        let query = "since=\(since)" + (tag.map { "&tag=\($0)" } ?? "")
        let json = try await get("/sim/requests?\(query)")
        return (json["requests"]?.array ?? []).compactMap { item in
            guard let tag = item["tag"]?.string, let tokens = item["tokens"]?.integer, let accepted = item["accept_ns"]?.integer else {
                return nil
            }
            func time(_ name: String) -> UInt64? { item[name]?.integer.map { UInt64($0) } }
            return Request(
                tag: tag, tokens: tokens, accepted: UInt64(accepted), firstToken: time("first_token_ns"),
                clientLeft: time("client_left_ns"),
                ended: time("end_ns"))
        }
    }

    /// Forgets what was, so that the list is as long as the measurement.
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
            return try JSON(parsing: bytes[body...])
        } catch {
            throw CommandFailure(
                .unavailable,
                "sluice: no simulator answers at \(address): \(error) (sluice simulate runs one; --simulator says where it is)")
        }
    }

    private struct NotASimulator: Error, CustomStringConvertible {
        let description = "its answer is no HTTP"
    }
}
