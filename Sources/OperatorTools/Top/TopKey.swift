/// A key press in `sluice top`.
enum TopKey: Equatable, Sendable {
    case up
    case down
    case pageUp
    case pageDown
    /// Tab: go to the next list.
    case next
    case escape
    /// Ctrl-C or Ctrl-D.
    case end
    case character(Character)
}

/// Decodes the bytes of a terminal into keys (ECMA-48 control sequences as sent by xterm and compatible terminals).
struct TopKeyDecoder {
    private static let escape: UInt8 = 0x1B

    /// - Parameter bytes: the result of one read. An escape byte at its end is the Escape key, since terminals write a control sequence in
    ///   one piece.
    static func keys(in bytes: [UInt8]) -> [TopKey] {
        var keys: [TopKey] = []
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            index += 1
            switch byte {
            case escape:
                guard index < bytes.count, bytes[index] == UInt8(ascii: "[") || bytes[index] == UInt8(ascii: "O") else {
                    keys.append(.escape)
                    continue
                }
                index += 1
                let start = index
                // Parameters, then one final byte.
                while index < bytes.count, bytes[index] < 0x40 { index += 1 }
                guard index < bytes.count else { continue }
                if let key = sequence(parameters: bytes[start..<index], last: bytes[index]) { keys.append(key) }
                index += 1
            case 3, 4: keys.append(.end)
            case 9: keys.append(.next)
            case 0x20..<0x7F: keys.append(.character(Character(Unicode.Scalar(byte))))
            default: break
            }
        }
        return keys
    }

    /// The key of a control sequence; nil for sequences that are not used.
    private static func sequence(parameters: ArraySlice<UInt8>, last: UInt8) -> TopKey? {
        switch last {
        case UInt8(ascii: "A"): .up
        case UInt8(ascii: "B"): .down
        case UInt8(ascii: "~") where parameters.first == UInt8(ascii: "5"): .pageUp
        case UInt8(ascii: "~") where parameters.first == UInt8(ascii: "6"): .pageDown
        default: nil
        }
    }
}
