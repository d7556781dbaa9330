import Contract
import JSONCodec
import Support

/// `encrypted_content` of a reasoning item: what the provider needs to take its reasoning back, as clients without stored responses send it
/// with the next request. Base64 of a content block in Anthropic's terms, the only provider that marks its reasoning. The provider signed or
/// encrypted it; Base64 only keeps it opaque.
enum EncryptedReasoning {
    /// The content of a part of an answer; nil without a mark.
    static func content(of part: Answer.Part) -> String? {
        let block: JSON
        switch part.mark {
        case .signature(let signature)?:
            // With the text, since the signature is valid for exactly this text and clients may keep none.
            block = ["type": "thinking", "thinking": .string(part.text), "signature": .string(signature)]
        case .redacted(let data)?: block = ["type": "redacted_thinking", "data": .string(data)]
        case nil: return nil
        }
        return Base64.encode(block.bytes)
    }

    /// The reasoning in a content; nil for the content of another service, which only that service can read.
    static func part(parsing content: String) -> Conversation.Part? {
        var bytes: [UInt8] = []
        guard Base64.decode(content, into: &bytes), let block = try? JSON(parsing: bytes) else { return nil }
        switch block["type"]?.string {
        case "thinking"?:
            guard let text = block["thinking"]?.string, let signature = block["signature"]?.string else { return nil }
            return .reasoning(text, signature: signature)
        case "redacted_thinking"?: return block["data"]?.string.map { .redactedReasoning($0) }
        default: return nil
        }
    }
}
