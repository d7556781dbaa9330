import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

/// The scanner against Foundation's parser, on texts that seeded mutations have broken more or less.
@Suite(.serialized, .cpuBound)
struct JSONMutationTests {
    private static let seeds = [
        Samples.rich, #"{"id":"1-2","type":"text","text":" w1"}"#, #"[1,2.50,-3e2,"\ud83d\udc3c",null,true,{"a":[]}]"#,
        #"{"choices":[{"delta":{"content":"杭州\n","role":"assistant"},"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":22}}"#,
        "{}", "\"x\"",
    ]

    /// What either parser may decide by itself: Foundation's rules are not RFC 8259's here.
    private func isDisputed(_ bytes: [UInt8]) -> Bool {
        // A byte order mark and UTF-16 are detected by Foundation; NUL bytes make it guess an encoding.
        // A name that occurs twice is an error here.
        if (try? JSON(parsing: bytes)) == nil, (try? JSON(parsing: bytes, rules: .lenient)) != nil { return true }
        if bytes.contains(0) || bytes.starts(with: [0xEF, 0xBB, 0xBF]) || bytes.starts(with: [0xFE]) || bytes.starts(with: [0xFF]) {
            return true
        }
        // Half a surrogate pair is an error there and a replacement character here.
        let text = String(decoding: bytes, as: UTF8.self).lowercased()
        if text.contains("\\ud") { return true }
        // A comma before an object's or array's end is let through there.
        if text.filter({ !$0.isWhitespace }).contains(/,[}\]]/) { return true }
        // Numbers beyond Double are an error there and keep their spelling here.
        let digits = zip(bytes, bytes.dropFirst()).contains { (0x30...0x39).contains($0) && $1 | 0x20 == 0x65 }
        return digits
    }

    @Test(arguments: 1...8) func `scanner and Foundation agree on what is JSON`(seed: UInt64) async {
        var random = SplitMix(seed: seed)
        var valid = 0
        for round in 0..<2_500 {
            // Every test shares a thread or two with this one, those with deadlines too.
            if round % 250 == 0 { await Task.yield() }
            var bytes = Array(Self.seeds[round % Self.seeds.count].utf8)
            for _ in 0..<Int.random(in: 0...3, using: &random) { mutate(&bytes, &random) }
            let ours = try? JSON(parsing: bytes)
            let theirs = try? JSONSerialization.jsonObject(with: Data(bytes), options: [.fragmentsAllowed])
            if ours != nil { valid += 1 }
            let shown = String(decoding: bytes, as: UTF8.self)
            guard (ours == nil) == (theirs == nil) else {
                #expect(isDisputed(bytes), "seed \(seed), round \(round): ours \(ours != nil), Foundation's \(theirs != nil): \(shown)")
                continue
            }
            guard let ours, let theirs, !isDisputed(bytes) else { continue }
            #expect(same(ours, theirs), "seed \(seed), round \(round): \(shown)")
            #expect((try? JSON(parsing: ours.bytes)) == ours, "seed \(seed), round \(round): written and read again: \(shown)")
        }
        #expect(valid > 500, "the mutations leave too little to compare")
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix) {
        let structure = Array("{}[]\",:\\0123456789.-+ntf \n".utf8)
        guard let place = bytes.indices.randomElement(using: &random) else { return bytes.append(structure.randomElement(using: &random)!) }
        switch Int.random(in: 0..<6, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 1...255, using: &random)
        case 1: bytes.remove(at: place)
        case 2: bytes.insert(structure.randomElement(using: &random)!, at: place)
        case 3: bytes[place] = structure.randomElement(using: &random)!
        case 4: bytes.insert(contentsOf: bytes[place...].prefix(Int.random(in: 1...8, using: &random)), at: place)
        default: bytes.swapAt(place, bytes.indices.randomElement(using: &random)!)
        }
    }

    private func same(_ ours: JSON, _ theirs: Any) -> Bool {
        switch ours {
        case .null: return theirs is NSNull
        case .bool(let value): return (theirs as? Bool) == value
        case .string(let text): return (theirs as? String) == text
        case .number: return ours.double == (theirs as? NSNumber)?.doubleValue
        case .array(let elements):
            guard let list = theirs as? [Any], list.count == elements.count else { return false }
            return zip(elements, list).allSatisfy { same($0, $1) }
        case .object(let object):
            guard let table = theirs as? [String: Any] else { return false }
            return object.names.allSatisfy { name in
                // Of a doubled name Foundation keeps whichever it likes.
                if object.names.count(where: { $0 == name }) > 1 { return true }
                guard let value = object[name], let other = table[name] else { return false }
                return same(value, other)
            }
        }
    }
}

/// Random numbers that a seed repeats.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
