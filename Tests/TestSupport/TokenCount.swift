import Foundation
import JSONCodec

/// A text and what real tokenizers make of it, from `Fixtures/token_counts.json`, which names the tokenizers.
package struct TokenCount: Sendable {
    package let name: String
    package let text: String
    /// Tokens by the name of the tokenizer.
    package let tokens: [String: Int]

    /// Two texts in each of ten languages, two of code and two of numbers.
    package static let all: [TokenCount] = {
        let file = Repository.root.appending(path: "Tests/TestSupport/Fixtures/token_counts.json")
        guard let data = try? Data(contentsOf: file), let json = try? JSON(parsing: Array(data)) else { return [] }
        let tokenizers = json["tokenizers"]?.object?.names ?? []
        return (json["texts"]?.array ?? []).map { entry in
            var tokens: [String: Int] = [:]
            for tokenizer in tokenizers { tokens[tokenizer] = entry[tokenizer]?.integer }
            return TokenCount(name: entry["name"]?.string ?? "", text: entry["text"]?.string ?? "", tokens: tokens)
        }
    }()
}
