import Contract
import Foundation
import JSONCodec
import Testing

/// Settings of the fuzz tests. A failure reports the seed and the number of the input, which reproduce it.
package enum Fuzz {
    private static func setting<Value: LosslessStringConvertible>(_ name: String) -> Value? {
        ProcessInfo.processInfo.environment[name].flatMap { Value($0) }
    }

    /// Whether `SLUICE_FUZZ_INPUTS` is set, so that a test uses more inputs than in a normal run.
    package static var isExtended: Bool { setting("SLUICE_FUZZ_INPUTS") != Int?.none }

    /// `SLUICE_FUZZ_INPUTS`: number of inputs of each fuzz test; `standard` when it is unset.
    package static func inputs(_ standard: Int) -> Int { setting("SLUICE_FUZZ_INPUTS") ?? standard }

    /// `SLUICE_FUZZ_SEED`; 1 when it is unset.
    package static var seed: UInt64 { setting("SLUICE_FUZZ_SEED") ?? 1 }

    /// The seed of one input, so that an input can be reproduced without the preceding ones.
    package static func seed(of number: Int) -> UInt64 { seed &* 0x1_0000_0000 &+ UInt64(number) }

    /// Calls `body` for each input with a mutator of its own seed, so that an input can be reproduced without the preceding ones. Yields
    /// regularly, as other tests share the threads.
    package static func run(_ standard: Int, _ body: (inout Mutator, _ number: Int) throws -> Void) async rethrows {
        for number in 0..<inputs(standard) {
            if number % 64 == 0 { await Task.yield() }
            var mutator = Mutator(seed: seed(of: number))
            try body(&mutator, number)
        }
    }
}

extension Fuzz {
    /// Records an issue with the seed and the input. Unlike `#expect` it costs nothing on success.
    package static func check(_ isRight: Bool, _ number: Int, sourceLocation: SourceLocation = #_sourceLocation) {
        if !isRight { Issue.record("seed \(seed), input \(number)", sourceLocation: sourceLocation) }
    }
}

/// Seeded mutations of bytes, text and JSON. Most results are still valid enough to reach the code behind the parser.
package struct Mutator: Sendable {
    /// Numbers at the limits of arithmetic.
    package static let numbers = [
        "0", "-0", "1", "-1", "2147483648", "9007199254740991", "9007199254740992", "-9007199254740992", "9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "18446744073709551615", "1e15", "1e18", "1e19", "-1e19", "1e308", "1e400", "-1e400",
        "0.5", "-1.5", "1e-400", "123456789012345678901234567890",
    ]
    /// Texts that are not JSON numbers, for hashes and headers.
    package static let words = ["", " ", "inf", "-inf", "nan", "infinity", "0x10", "+1", "1_000", "٢", "null", "true", "-", "\0", "1e5"]
    /// Characters with a special meaning for terminals, logs and parsers.
    package static let texts = [
        "", "\u{1B}[2J", "\u{9B}31m", "\u{202E}", "\u{2066}", "\u{200F}", "\u{FEFF}", "\0", "\r\n", "\u{7F}", "\u{85}", "é", "e\u{301}",
        "👩‍👩‍👧", "\u{10FFFF}", "{}", "\"", "\\", "p0-", "p999999999-x", "1-9223372036854775807",
    ]
    private static let structure = Array("{}[]\",:\\0123456789.-+eE ntf\r\n\t*$:_#!%=~>(,".utf8)

    package var random: SplitMix64

    package init(seed: UInt64) { random = SplitMix64(seed: seed) }

    package mutating func below(_ count: Int) -> Int { Int.random(in: 0..<max(1, count), using: &random) }

    /// True once in `count` calls on average.
    package mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }

    package mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }

    /// The bytes with one to four mutations.
    package mutating func bytes(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0...below(4) {
            let place = below(bytes.count)
            guard !bytes.isEmpty else {
                bytes.append(pick(Self.structure))
                continue
            }
            switch below(9) {
            case 0: bytes[place] = UInt8(below(256))
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(pick(Self.structure), at: place)
            case 3: bytes[place] = pick(Self.structure)
            case 4: bytes.insert(contentsOf: bytes[place...].prefix(1 + below(16)), at: place)
            case 5: bytes.swapAt(place, below(bytes.count))
            case 6: bytes.removeSubrange(place..<min(bytes.count, place + 1 + below(16)))
            case 7: replaceNumber(in: &bytes, from: place)
            default: bytes.removeLast(below(bytes.count))
            }
        }
        return bytes
    }

    /// A replacement for a text: hostile, long, numeric or mutated.
    package mutating func text(_ text: String) -> String {
        switch below(6) {
        case 0: pick(Self.texts)
        case 1: pick(Self.numbers)
        case 2: pick(Self.words)
        case 3: text + pick(Self.texts)
        case 4: String(repeating: text.isEmpty ? "x" : text, count: 1 + below(40))
        default: String(decoding: bytes(Array(text.utf8)), as: UTF8.self)
        }
    }

    /// The JSON text of a value that was mutated in one to three places. One in eight is also mutated as bytes.
    package mutating func json(_ value: JSON) -> [UInt8] {
        var value = value
        for _ in 0...below(3) { value = mutated(value, depth: 0) }
        return oneIn(8) ? bytes(value.bytes) : value.bytes
    }

    /// A hash's fields with one to three mutated: values, missing and unknown names.
    package mutating func fields(_ fields: [String: String]) -> [String: String] {
        var fields = fields
        for _ in 0...below(3) {
            let name = pick(fields.keys.sorted() + [""])
            switch below(5) {
            case 0: fields[name] = nil
            case 1: fields[text(name)] = fields[name]
            case 2: fields[name] = pick(Self.numbers)
            case 3: fields[name] = pick(Self.words)
            default: fields[name] = text(fields[name] ?? "")
            }
        }
        return fields
    }

    private mutating func mutated(_ value: JSON, depth: Int) -> JSON {
        switch value {
        case .object(let object) where !object.isEmpty && (depth == 0 || !oneIn(5)):
            var members = object.members
            let place = below(members.count)
            switch below(10) {
            case 0: members.remove(at: place)
            case 1: members.append(members[place])
            case 2: members[place].name = text(members[place].name)
            case 3: members.append(JSONObject.Member(name: text("x"), value: members[place].value))
            default: members[place].value = mutated(members[place].value, depth: depth + 1)
            }
            return .object(JSONObject(members))
        case .array(let elements) where !elements.isEmpty && (depth == 0 || !oneIn(5)):
            var elements = elements
            let place = below(elements.count)
            switch below(8) {
            case 0: elements.remove(at: place)
            case 1: elements.append(elements[place])
            default: elements[place] = mutated(elements[place], depth: depth + 1)
            }
            return .array(elements)
        default: return other(than: value)
        }
    }

    private mutating func other(than value: JSON) -> JSON {
        switch below(8) {
        case 0: return .null
        case 1: return .bool(oneIn(2))
        case 2, 3: return .number(pick(Self.numbers.filter { !$0.isEmpty }))
        case 4: return .array([value, value])
        case 5: return .object(JSONObject([.init(name: text("a"), value: value), .init(name: "a", value: .null)]))
        default: return .string(text(value.string ?? value.text))
        }
    }

    /// Replaces the digits at or after a position.
    private mutating func replaceNumber(in bytes: inout [UInt8], from place: Int) {
        guard let start = bytes[place...].firstIndex(where: { $0 &- 0x30 < 10 }) else { return }
        let end = bytes[start...].firstIndex { $0 &- 0x30 >= 10 } ?? bytes.count
        bytes.replaceSubrange(start..<end, with: Array(pick(Self.numbers).utf8))
    }
}
