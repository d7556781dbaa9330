/// The commands of a pipeline with the slots of their keys, read from the bytes that are sent.
///
/// Only pipelines of this module are read, so a buffer that is not RESP is a fault of the program; it has no commands then.
struct CommandSlots {
    struct Command: Equatable {
        /// The place of the command in the pipeline's bytes.
        let bytes: Range<Int>
        /// The slot of the first key; nil for a command without a key. All keys of a command must be in one slot, which the server verifies.
        let slot: Int?
    }

    private(set) var commands: [Command] = []

    init(_ pipeline: RedisPipeline) {
        commands.reserveCapacity(pipeline.count)
        let bytes = pipeline.bytes
        var position = 0
        while position < bytes.count {
            let first = position
            guard let count = Self.number(after: UInt8(ascii: "*"), in: bytes, &position), count > 0 else { return }
            var arguments = Arguments()
            for index in 0..<count {
                guard let length = Self.number(after: UInt8(ascii: "$"), in: bytes, &position), length <= bytes.count - position - 2 else {
                    return
                }
                arguments.add(index, bytes[position..<position + length])
                position += length + 2
            }
            commands.append(Command(bytes: first..<position, slot: arguments.key.map { HashSlot.of($0) }))
        }
    }

    /// Reads `<type><decimal number>\r\n`.
    private static func number(after type: UInt8, in bytes: [UInt8], _ position: inout Int) -> Int? {
        guard position < bytes.count, bytes[position] == type else { return nil }
        var value = 0
        var index = position + 1
        while index < bytes.count, bytes[index] != 0x0D {
            guard (0x30...0x39).contains(bytes[index]), value < 1 << 40 else { return nil }
            value = value * 10 + Int(bytes[index] - 0x30)
            index += 1
        }
        guard index + 1 < bytes.count else { return nil }
        position = index + 2
        return value
    }

    /// Finds the first key among the arguments of one command.
    private struct Arguments {
        /// The position of the first key.
        private enum KeyPosition {
            case at(Int)
            /// After the argument STREAMS.
            case afterStreams
            case none
        }

        private(set) var key: ArraySlice<UInt8>?
        private var position = KeyPosition.none

        mutating func add(_ index: Int, _ argument: ArraySlice<UInt8>) {
            if index == 0 { position = Self.position(of: argument) }
            switch position {
            case .at(index): key = argument
            case .afterStreams where index > 0 && argument.elementsEqual("STREAMS".utf8): position = .at(index + 1)
            case .at, .afterStreams, .none: break
            }
        }

        private static func position(of command: ArraySlice<UInt8>) -> KeyPosition {
            switch String(decoding: command, as: UTF8.self) {
            case "EVALSHA", "EVAL", "EVALSHA_RO", "EVAL_RO": .at(3)
            case "XREADGROUP", "XREAD": .afterStreams
            case "XGROUP", "XINFO", "OBJECT", "MEMORY": .at(2)
            // PUBLISH reaches all nodes from any of them.
            case "PING", "ECHO", "TIME", "SCAN", "SCRIPT", "INFO", "CONFIG", "CLUSTER", "CLIENT", "ROLE", "WAIT", "DBSIZE", "COMMAND",
                "ACL", "PUBLISH", "PUBSUB", "FLUSHALL", "FLUSHDB", "DEBUG", "LATENCY", "SLOWLOG", "LOLWUT":
                .none
            default: .at(1)
            }
        }
    }
}
