import Contract
import JSONCodec
import Support

/// Assembles tool calls from the fragments in a stream. Several calls may be interleaved; their index or id tells them apart.
struct ToolCallAssembler {
    private static let maximumCalls = 1_024
    /// Maximum number of bytes of all calls of one answer: arguments, names and ids.
    private static let maximumBytes = 16 << 20
    static let maximumNameBytes = 128
    static let maximumIDBytes = 1_024
    /// Maximum number of fragments in one chunk.
    static let maximumFragments = 4_096

    /// A part of a tool call. The first fragment usually has the id and the name, later ones append arguments.
    struct Fragment {
        var index: Int?
        var id: String?
        var name: String?
        /// Part of the arguments' JSON text.
        var arguments: TextPiece?
        /// The complete arguments, sent as JSON instead of a string. They count only if no `arguments` come in addition.
        var whole: String?

        init(index: Int? = nil, id: String? = nil, name: String? = nil, arguments: String? = nil) {
            self.index = index
            self.id = id
            self.name = name
            self.arguments = arguments.map { TextPiece($0) }
        }

        /// Whether the fragment has arguments that are not blank.
        fileprivate var hasArguments: Bool { whole != nil || arguments.map { !$0.text.isJSONBlank || $0.high != nil } == true }
        fileprivate var hasName: Bool { name?.isEmpty == false }
        fileprivate var bytes: Int {
            (id?.utf8.count ?? 0) + (name?.utf8.count ?? 0) + (arguments?.text.utf8.count ?? 0) + (whole?.utf8.count ?? 0)
        }
    }

    private struct Call {
        var index: Int
        var id = ""
        var name = ""
        var arguments = ""
        var joiner = TextJoiner()
        var brackets = BracketCounter()
        var whole: String?

        /// Whether the arguments are a complete JSON object or array, as far as brackets show.
        var isClosed: Bool { whole != nil || brackets.isClosed }

        /// The arguments: the fragments if there are any, otherwise the whole that came at once. Blank if there are neither.
        mutating func joinedArguments() -> String {
            arguments += joiner.rest()
            return arguments.isJSONBlank ? whole ?? "" : arguments
        }
    }

    private var calls: [Call] = []
    /// Positions in `calls`, by the upstream's index. Of several calls with one index, the last one continues.
    private var positions: [Int: Int] = [:]
    /// Positions in `calls`, by id.
    private var ids: [String: Int] = [:]
    private var bytes = 0

    /// Adds a fragment to its call.
    /// - Parameter followsInChunk: Whether the fragment is not the first one of its chunk.
    /// - Throws: `output_too_large` or `upstream_protocol` if the calls exceed a limit.
    mutating func add(_ fragment: Fragment, followsInChunk: Bool = false) throws(Failure) {
        // A fragment without content may still add an entry to `positions`.
        bytes += fragment.bytes + 16
        guard bytes <= Self.maximumBytes else {
            throw Failure(.outputTooLarge, "the upstream's tool calls exceed \(Self.maximumBytes) bytes")
        }
        let position: Int
        if let existing = existingCall(for: fragment, followsInChunk: followsInChunk) {
            position = existing
            if let index = fragment.index, positions[index] == nil { positions[index] = position }
        } else {
            guard calls.count < Self.maximumCalls else {
                throw Failure(.outputTooLarge, "the upstream sent more than \(Self.maximumCalls) tool calls")
            }
            position = calls.count
            calls.append(Call(index: fragment.index ?? position))
            if let index = fragment.index { positions[index] = position }
        }
        // The id comes once. Later fragments omit it, leave it empty or repeat it.
        if let id = fragment.id, !id.isEmpty, calls[position].id.isEmpty {
            calls[position].id = try Self.bounded(id, "id", to: Self.maximumIDBytes)
            ids[id] = position
        }
        if let name = fragment.name, !name.isEmpty, name != calls[position].name {
            calls[position].name = try Self.bounded(calls[position].name + name, "name", to: Self.maximumNameBytes)
        }
        if let whole = fragment.whole { calls[position].whole = whole }
        if let piece = fragment.arguments {
            let text = calls[position].joiner.text(piece)
            calls[position].brackets.add(text)
            calls[position].arguments += text
        }
    }

    /// Finds the call that a fragment continues; nil if it starts a call.
    private func existingCall(for fragment: Fragment, followsInChunk: Bool) -> Int? {
        guard let last = calls.indices.last else { return nil }
        let id = fragment.id.flatMap { $0.isEmpty ? nil : $0 }
        if let id, let position = ids[id] { return startsAnother(fragment, calls[position]) ? nil : position }
        if let index = fragment.index {
            guard let position = positions[index] else {
                // The head of a call may have had another index, but a call cannot start without a name or an id.
                return id == nil && !fragment.hasName ? last : nil
            }
            // Complete calls with one index and different ids are different calls. Without a name it is the same call with a new id.
            if id != nil, !calls[position].id.isEmpty, fragment.hasName { return nil }
            return startsAnother(fragment, calls[position]) ? nil : position
        }
        if id != nil, !calls[last].id.isEmpty { return nil }
        guard let name = fragment.name, !name.isEmpty, !calls[last].name.isEmpty else { return last }
        // Neither index nor id tells the calls apart: a name does, unless it only repeats the name of an unfinished call.
        if followsInChunk || name != calls[last].name || calls[last].isClosed && fragment.hasArguments { return nil }
        return last
    }

    /// Whether a fragment with the index or id of a complete call is another call.
    private func startsAnother(_ fragment: Fragment, _ call: Call) -> Bool {
        guard let name = fragment.name, !name.isEmpty, !call.name.isEmpty, call.isClosed else { return false }
        return name != call.name || fragment.hasArguments
    }

    /// Returns all calls in order of their index, counted from 0, and resets the assembler. Missing arguments become `{}`, missing and
    /// repeated ids are replaced.
    /// - Parameter isCut: Whether the answer was cut off, for example by the token limit. Incomplete calls are then left out, and so are
    ///   calls without arguments, of which perhaps only the name was generated.
    /// - Throws: `upstream_protocol` for arguments that are not JSON and for a call without a name, unless the answer was cut off.
    mutating func finish(isCut: Bool = false) throws(Failure) -> [ToolCall] {
        var finished: [ToolCall] = []
        var usedIDs: Set<String> = []
        for position in calls.indices.sorted(by: { (calls[$0].index, $0) < (calls[$1].index, $1) }) {
            var arguments = calls[position].joinedArguments()
            let call = calls[position]
            let isBlank = arguments.isJSONBlank
            if isBlank { arguments = "{}" }
            let isJSON = Self.isJSON(&arguments)
            if isCut, isBlank || !isJSON || call.name.isEmpty { continue }
            guard isJSON else {
                throw Failure(
                    .upstreamProtocol,
                    "the arguments of the upstream's tool call \"\(call.name.cut(toBytes: 100))\" are not JSON")
            }
            guard !call.name.isEmpty else { throw Failure(.upstreamProtocol, "the upstream sent a tool call without a name") }
            var id = call.id.isEmpty ? "call_\(finished.count)" : call.id
            if usedIDs.contains(id) { id = "call_\(finished.count)_\(id.cut(toBytes: Self.maximumIDBytes - 16))" }
            usedIDs.insert(id)
            finished.append(ToolCall(index: finished.count, callID: id, name: call.name, arguments: arguments))
        }
        self = ToolCallAssembler()
        return finished
    }

    /// Returns the text, or throws `upstream_protocol` if it is longer than `limit` bytes.
    private static func bounded(_ text: String, _ what: StaticString, to limit: Int) throws(Failure) -> String {
        guard text.utf8.count <= limit else {
            throw Failure(.upstreamProtocol, "the \(what) of an upstream tool call is longer than \(limit) bytes")
        }
        return text
    }

    private static func isJSON(_ text: inout String) -> Bool {
        var scanner = JSONScanner(text.utf8Span.span)
        do throws(JSONError) {
            try scanner.validate()
            try scanner.finish()
            return true
        } catch { return false }
    }
}

/// Counts the brackets of JSON text that arrives in pieces, to see when its object or array is complete.
private struct BracketCounter {
    private var depth = 0
    private var isInString = false
    private var isEscaped = false
    /// Whether an object or array was opened and everything is closed again.
    private(set) var isClosed = false

    mutating func add(_ text: String) {
        for byte in text.utf8 {
            if isEscaped {
                isEscaped = false
            } else if isInString {
                isEscaped = byte == UInt8(ascii: "\\")
                isInString = byte != UInt8(ascii: "\"")
            } else {
                switch byte {
                case UInt8(ascii: "\""): isInString = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"):
                    depth -= 1
                    isClosed = depth == 0
                default: break
                }
            }
        }
    }
}

extension String {
    /// Whether the text has nothing but JSON's white space and control characters.
    fileprivate var isJSONBlank: Bool { utf8.allSatisfy { $0 <= 0x20 } }
}
