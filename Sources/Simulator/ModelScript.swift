/// The behaviour that a model name requests: `sim-n<N>-g<G>` with suffixes in any order. Other models answer with a readable paragraph.
///
/// | part | meaning | default, range |
/// |---|---|---|
/// | `n<N>` | tokens | 100, at most 10,000,000 |
/// | `g<MS>` | milliseconds between tokens, decimals allowed; 0 writes as fast as the socket accepts | 20, at most 600,000 |
/// | `f<MS>` | milliseconds before the first token, decimals allowed | 0, at most 86,400,000 |
/// | `e<STATUS>` | answer with this error | 400 to 599 |
/// | `k<K>` | drop the connection after K tokens | – |
/// | `h<K>` | go silent after K tokens | – |
/// | `b<K>` | K tokens in one write | 1 |
/// | `x` | an error frame inside the 200 after the tokens | – |
/// | `d` | end without finish reason and end mark | – |
/// | `t` | a tool call after the tokens | – |
/// | `c` | a tool call after the tokens, unless the request ends with the result of one (OpenAI's API only) | – |
/// | `r` | reasoning before the tokens | – |
/// | `l` | end at the token limit; with `t` in the middle of the call's arguments | – |
/// | `o` | leave the connection of a stream open after the end | – |
/// | `z` | continue generating after the client disconnects | – |
///
/// Unknown parts and parts whose number is missing or out of range are ignored. The last of repeated parts wins.
struct ModelScript: Hashable, Sendable {
    var tokens = 100
    /// Nanoseconds between bursts of tokens.
    var gap: UInt64 = 20_000_000
    /// Nanoseconds before the first token.
    var firstDelay: UInt64 = 0
    var errorStatus: Int?
    var dropAfter: Int?
    var silentAfter: Int?
    /// Tokens in one write, at least 1.
    var burst = 1
    var errorFrame = false
    var truncated = false
    var toolCall = false
    var callsOnce = false
    var reasoning = false
    var tokenLimit = false
    var staysOpen = false
    var outlivesClient = false

    /// Upper bound of every count in a model name.
    static let maximumTokens = 10_000_000
    /// Upper bounds of the times in a model name, in milliseconds.
    private static let maximumGap = 600_000.0
    private static let maximumDelay = 86_400_000.0

    init() {}

    /// Returns nil for a name that is neither `sim` nor `sim-...`.
    init?(model: String) {
        let parts = model.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.first == "sim" else { return nil }
        for part in parts.dropFirst() { apply(part) }
    }

    /// Applies one part of the name; ignores invalid parts.
    private mutating func apply(_ part: Substring) {
        let digits = part.dropFirst()
        switch part.first {
        case "n": tokens = Self.count(digits) ?? tokens
        case "g": gap = Self.nanoseconds(digits, maximum: Self.maximumGap) ?? gap
        case "f": firstDelay = Self.nanoseconds(digits, maximum: Self.maximumDelay) ?? firstDelay
        case "e":
            if let status = Self.count(digits), (400...599).contains(status) { errorStatus = status }
        case "k": dropAfter = Self.count(digits) ?? dropAfter
        case "h": silentAfter = Self.count(digits) ?? silentAfter
        case "b": burst = max(1, Self.count(digits) ?? burst)
        case "x" where digits.isEmpty: errorFrame = true
        case "d" where digits.isEmpty: truncated = true
        case "t" where digits.isEmpty: toolCall = true
        case "c" where digits.isEmpty: callsOnce = true
        case "r" where digits.isEmpty: reasoning = true
        case "l" where digits.isEmpty: tokenLimit = true
        case "o" where digits.isEmpty: staysOpen = true
        case "z" where digits.isEmpty: outlivesClient = true
        default: break
        }
    }

    /// Parses a count, clamped to `maximumTokens`.
    private static func count(_ digits: Substring) -> Int? {
        guard !digits.isEmpty, digits.utf8.allSatisfy({ $0 &- 0x30 < 10 }) else { return nil }
        return min(Int(digits) ?? maximumTokens, maximumTokens)
    }

    /// Parses decimal milliseconds, clamped to `maximum`, into nanoseconds.
    private static func nanoseconds(_ digits: Substring, maximum: Double) -> UInt64? {
        guard digits.utf8.allSatisfy({ $0 &- 0x30 < 10 || $0 == UInt8(ascii: ".") }), let milliseconds = Double(String(digits)) else {
            return nil
        }
        return UInt64(min(milliseconds, maximum) * 1_000_000)
    }
}
