import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

/// Compares the scanner with Foundation's parser on mutated texts.
@Suite(.serialized, .cpuBound)
struct JSONMutationTests {
    private static let seeds = [
        Samples.rich, #"{"id":"1-2","type":"text","text":" w1"}"#, #"[1,2.50,-3e2,"\ud83d\udc3c",null,true,{"a":[]}]"#,
        #"{"choices":[{"delta":{"content":"杭州\n","role":"assistant"},"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":22}}"#,
        "{}", "\"x\"",
    ]

    /// Whether the parsers may differ, because Foundation deviates from RFC 8259.
    private func isDisputed(_ bytes: [UInt8]) -> Bool {
        // A byte order mark and UTF-16 are detected by Foundation; NUL bytes make it guess an encoding.
        // A name that occurs twice is an error in JSONCodec.
        if (try? JSON(parsing: bytes)) == nil, (try? JSON(parsing: bytes, rules: .lenient)) != nil { return true }
        if bytes.contains(0) || bytes.starts(with: [0xEF, 0xBB, 0xBF]) || bytes.starts(with: [0xFE]) || bytes.starts(with: [0xFF]) {
            return true
        }
        // Half a surrogate pair is an error in Foundation and a replacement character in JSONCodec.
        let text = String(decoding: bytes, as: UTF8.self).lowercased()
        if text.contains("\\ud") { return true }
        // Foundation accepts a comma before the end of an object or array.
        if text.filter({ !$0.isWhitespace }).contains(/,[}\]]/) { return true }
        // Numbers outside the range of Double are an error in Foundation and keep their spelling in JSONCodec.
        let digits = zip(bytes, bytes.dropFirst()).contains { (0x30...0x39).contains($0) && $1 | 0x20 == 0x65 }
        return digits
    }

    @Test(arguments: 1...8) func `scanner and Foundation agree on what is JSON`(seed: UInt64) async {
        var random = SplitMix64(seed: seed)
        var valid = 0
        for round in 0..<2_500 {
            // Other tests share the threads.
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
        #expect(valid > 500, "too few mutated texts are valid")
    }

    private func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
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
                // Foundation keeps any of the values of a duplicate name.
                if object.names.count(where: { $0 == name }) > 1 { return true }
                guard let value = object[name], let other = table[name] else { return false }
                return same(value, other)
            }
        }
    }
}
