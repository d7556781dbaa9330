import NIOCore
import Support

/// Builds `RESPValue`s from the calls of a `ReplyReader`.
final class ReplyBuilder: ReplySink {
    /// An array that is not complete.
    private struct Level {
        var missing: Int
        var values: [RESPValue]
    }

    private var levels: [Level] = []
    private var complete: RESPValue?
    private let receive: (RESPValue) -> Void

    /// - Parameter receive: called with each complete reply.
    init(receive: @escaping (RESPValue) -> Void) {
        self.receive = receive
    }

    func array(count: Int) {
        guard count > 0 else { return add(.array([])) }
        var values: [RESPValue] = []
        // The count comes from the server: reserve little, and let memory grow with the elements that arrive.
        values.reserveCapacity(min(count, 1024))
        levels.append(Level(missing: count, values: values))
    }

    func bulk(_ bytes: Span<UInt8>) {
        var buffer = ByteBuffer()
        buffer.writeBytes(bytes.raw)
        add(.bulk(buffer))
    }

    func simple(_ bytes: Span<UInt8>) { add(.simple(String(decoding: bytes))) }
    func error(_ bytes: Span<UInt8>) { add(.error(String(decoding: bytes))) }
    func integer(_ value: Int64) { add(.integer(value)) }
    func null() { add(.null) }

    private func add(_ value: RESPValue) {
        var value = value
        while let last = levels.indices.last {
            levels[last].values.append(value)
            levels[last].missing -= 1
            guard levels[last].missing == 0 else { return }
            value = .array(levels.removeLast().values)
        }
        complete = value
    }

    func finish() throws(RedisError) {
        guard let value = complete else {
            throw RedisError(.protocolViolation, "invalid reply from Redis: it contains a type that RESP2 does not have")
        }
        complete = nil
        receive(value)
    }
}
