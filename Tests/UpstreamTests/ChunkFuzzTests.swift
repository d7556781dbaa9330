import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

@testable import Upstream

/// Compares the chunk scanner with `JSONDecoder` on mutated chunks.
@Suite(.serialized, .cpuBound)
struct ChunkFuzzTests {
    private struct Reference: Decodable {
        struct Choice: Decodable {
            var delta: Delta?
            var finish_reason: String?
        }
        struct Delta: Decodable {
            var content: String?
            var reasoning_content: String?
            var tool_calls: [Tool]?
        }
        struct Tool: Decodable {
            var index: Int?
            var id: String?
            var function: Function?
        }
        struct Function: Decodable {
            var name: String?
            var arguments: String?
        }
        struct Tokens: Decodable {
            var prompt_tokens: Int?
            var completion_tokens: Int?
        }
        var choices: [Choice]?
        var usage: Tokens?
    }

    private static let seeds = [
        #"{"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#,
        #"{"choices":[{"delta":{"content":"\u4f60\n","reasoning_content":null},"finish_reason":"stop","index":0}],"usage":{"prompt_tokens":1,"completion_tokens":2e0}}"#,
        #"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"a\":[1]}"}}]}}]}"#,
        #"{"choices":[],"usage":{"prompt_tokens":22,"completion_tokens":382,"details":{"reasoning_tokens":-1.5E3}},"ok":[true,false]}"#,
    ].map { Array($0.utf8) }

    private static let bits: [[UInt8]] = [
        "{", "}", "[", "]", "\"", ":", ",", "null", "true", "0", "1.0", "-", "e9", "\\", "\\u00e9", "\\ud83d", " ", "\n", "é", "\"x\":1,",
    ].map { Array($0.utf8) }

    private static func mutate(_ bytes: inout [UInt8], _ generator: inout SplitMix64) {
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
            guard !bytes.isEmpty else { return }
            let place = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
            case 1: bytes.remove(at: place)
            case 2: bytes.insert(contentsOf: bits.randomElement(using: &generator)!, at: place)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...8, using: &generator)))
            default:
                let other = Int.random(in: 0..<bytes.count, using: &generator)
                bytes.swapAt(place, other)
            }
        }
    }

    private static func scan(_ bytes: [UInt8]) -> OpenAIChunk? { try? OpenAIChunk(scanning: bytes.span) }

    /// Whether the results may differ. The scanner skips unused strings without validation, replaces halves of surrogate pairs and accepts
    /// content in parts. With a duplicate name each uses another value.
    private static func mayDiffer(_ bytes: [UInt8]) -> Bool {
        if bytes.contains(where: { $0 == UInt8(ascii: "\\") || $0 >= 0x80 }) { return true }
        guard let json = try? JSON(parsing: bytes, rules: .lenient) else { return false }
        return hasDuplicateNames(json)
    }

    private static func hasDuplicateNames(_ json: JSON) -> Bool {
        switch json {
        case .array(let elements): elements.contains(where: hasDuplicateNames)
        case .object(let object): Set(object.names).count != object.names.count || object.members.contains { hasDuplicateNames($0.value) }
        default: false
        }
    }

    @Test func `the scanner agrees with JSONDecoder`() async throws {
        let rounds = Fuzz.inputs(100_000)
        var generator = SplitMix64(seed: Fuzz.seed)
        let decoder = JSONDecoder()
        var bothRead = 0
        for round in 0..<rounds {
            // Other tests share the threads.
            if round % 250 == 0 { await Task.yield() }
            var bytes = Self.seeds[round % Self.seeds.count]
            Self.mutate(&bytes, &generator)
            let scanned = Self.scan(bytes)
            let decoded = try? decoder.decode(Reference.self, from: Data(bytes))
            switch (scanned, decoded) {
            case (nil, nil): continue
            case (let scanned?, let decoded?):
                bothRead += 1
                if Self.same(scanned, decoded) || Self.mayDiffer(bytes) { continue }
            case (_?, nil):
                // A type that only the scanner accepts or skips.
                if Self.mayDiffer(bytes) || (try? JSON(parsing: bytes, rules: .lenient)) != nil { continue }
            case (nil, _?):
                if Self.mayDiffer(bytes) || Self.isKnownStrictness(bytes) { continue }
            }
            Issue.record("round \(round): \(String(decoding: bytes, as: UTF8.self))")
            return
        }
        #expect(bothRead > rounds / 20, "too few mutations were still chunks")
    }

    /// Chunks of one stream, some with other members, some mutated: the short cut decodes them as the scanner does.
    @Test func `a template decodes the same as the scanner`() async throws {
        var generator = SplitMix64(seed: Fuzz.seed)
        let words = [
            " w1", "Hello", "你好", "a\\nb", "\\u4f60", "\\ud83d", "x\"},{\"y", "\u{1}", "", "5", "content", "stop", " é", "\\", "null",
        ]
        let forms = [
            #"{"id":"c1","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":null}]}"#,
            #"{"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"@","content":null}}]}"#,
            #"{"model":"@","choices":[{"delta":{"content":"\u0048i"}}]}"#,
            #"{"choices":[{"delta":{"content":[{"type":"text","text":"@"}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}"#,
            #"{"choices":[{"delta":{"content":5}}],"x":"@"}"#,
            #"{"object":"@","message":"m"}"#,
        ]
        var fitting = 0
        for round in 0..<Fuzz.inputs(20_000) {
            if round % 250 == 0 { await Task.yield() }
            var template = ChunkTemplate()
            let form = forms[Int.random(in: 0..<forms.count, using: &generator)]
            for _ in 0..<6 {
                let other = Int.random(in: 0..<4, using: &generator) == 0 ? forms.randomElement(using: &generator)! : form
                let word = words.randomElement(using: &generator)!
                var bytes = Array(other.replacing("@", with: word).utf8)
                if Int.random(in: 0..<6, using: &generator) == 0 { Self.mutate(&bytes, &generator) }
                let expected = Self.scan(bytes)
                let fits = template.fit(bytes.span) != nil
                let decoded = try? template.decode(bytes.span)
                guard decoded.map(Self.description) == expected.map(Self.description) else {
                    Issue.record("\(String(decoding: bytes, as: UTF8.self))")
                    return
                }
                if fits { fitting += 1 }
            }
        }
        #expect(fitting > 1_000, "the short cut is rarely taken")
    }

    private static func description(_ chunk: OpenAIChunk) -> String {
        "\(chunk.delta) \(chunk.finishReason ?? "-") \(chunk.promptTokens ?? -1) \(chunk.completionTokens ?? -1) \(chunk.hasChoice) \(chunk.error == nil)"
    }

    /// Whether the chunk has members that the scanner reads and `Reference` does not.
    private static func isKnownStrictness(_ bytes: [UInt8]) -> Bool {
        guard let json = try? JSON(parsing: bytes, rules: .lenient) else { return true }
        return json["error"] != nil || json["message"] != nil || json["code"] != nil
    }

    private static func same(_ chunk: OpenAIChunk, _ reference: Reference) -> Bool {
        let choice = reference.choices?.first
        func figure(_ number: Int?) -> Int? { number.map { min(max(0, $0), 1 << 53) } }
        guard chunk.delta.content.text == choice?.delta?.content ?? "",
            chunk.delta.reasoning.text == choice?.delta?.reasoning_content ?? "",
            chunk.finishReason == choice?.finish_reason, chunk.promptTokens == figure(reference.usage?.prompt_tokens),
            chunk.completionTokens == figure(reference.usage?.completion_tokens)
        else { return false }
        let tools = choice?.delta?.tool_calls ?? []
        return chunk.delta.tools.count == tools.count
            && zip(chunk.delta.tools, tools).allSatisfy {
                $0.index == figure($1.index) && $0.id == $1.id && $0.name == $1.function?.name
                    && $0.arguments?.text == $1.function?.arguments
            }
    }
}
