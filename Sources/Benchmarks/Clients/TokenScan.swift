import Contract
import JSONCodec
import Support

/// Finds the simulator's tokens (` w0`, ` w1` …) in messages without decoding, to keep the client's CPU time low.
enum TokenScan {
    /// The numbers of the first and the last token; nil when there is none. Events, frames and chunks contain no other text of this form.
    static func tokens(in bytes: Span<UInt8>) -> ClosedRange<Int>? {
        guard bytes.count >= 3, let first = firstToken(in: bytes) else { return nil }
        var index = bytes.count - 3
        while index >= 0 {
            if let number = number(at: index, in: bytes) { return first...max(first, number) }
            index -= 1
        }
        return nil
    }

    private static func firstToken(in bytes: Span<UInt8>) -> Int? {
        for index in 0..<(bytes.count - 2) {
            if let number = number(at: index, in: bytes) { return number }
        }
        return nil
    }

    /// The number of the token that starts at an index.
    private static func number(at index: Int, in bytes: Span<UInt8>) -> Int? {
        guard bytes[index] == 0x20, bytes[index + 1] == UInt8(ascii: "w") else { return nil }
        return digits(at: index + 2, in: bytes)
    }

    /// A number of at most 12 digits that starts at an index.
    private static func digits(at start: Int, in bytes: Span<UInt8>) -> Int? {
        var index = start
        var number = 0
        while index < bytes.count, bytes[index] &- 0x30 < 10, index - start < 12 {
            number = number * 10 + Int(bytes[index] - 0x30)
            index += 1
        }
        return index > start ? number : nil
    }

    /// Whether the bytes contain a text.
    static func contains(_ text: StaticString, in bytes: Span<UInt8>) -> Bool { position(after: text, in: bytes) != nil }

    /// The decimal number that follows a text.
    static func number(after text: StaticString, in bytes: Span<UInt8>) -> Int? {
        position(after: text, in: bytes).flatMap { digits(at: $0, in: bytes) }
    }

    /// The text between a text and the next quotation mark.
    static func string(after text: StaticString, in bytes: Span<UInt8>) -> String? {
        guard let start = position(after: text, in: bytes) else { return nil }
        let end = bytes.firstOffset(of: UInt8(ascii: "\""), in: start..<bytes.count) ?? bytes.count
        return String(decoding: bytes.extracting(start..<end))
    }

    /// The index after the first occurrence of a text.
    private static func position(after text: StaticString, in bytes: Span<UInt8>) -> Int? {
        let count = text.utf8CodeUnitCount
        guard bytes.count >= count, count > 0 else { return nil }
        for index in 0...(bytes.count - count) where bytes.extracting(index..<(index + count)).starts(with: text) { return index + count }
        return nil
    }
}

/// A model of the simulator that sends tokens at a fixed interval.
struct SimulatedModel: Sendable {
    var tokens: Int
    /// Interval between tokens, milliseconds.
    var gap: Double

    var name: String { "sim-n\(tokens)-g\(gap == gap.rounded() ? String(Int(gap)) : String(gap))" }
    /// The interval in nanoseconds.
    var gapNanoseconds: UInt64 { UInt64(gap * 1_000_000) }

    /// The body of a request for this model.
    /// - Parameter tag: the request's name in the simulator's list.
    func request(tag: String? = nil) -> JSONObject {
        var members = JSONObject()
        members["model"] = .string(name)
        members["messages"] = [["role": "user", "content": "go"]]
        members["user"] = tag.map(JSON.string)
        return members
    }
}
