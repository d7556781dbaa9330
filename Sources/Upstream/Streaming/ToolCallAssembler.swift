import Contract
import JSONCodec
import Support

/// Assembles tool calls from the fragments in a stream. Several calls may be interleaved; `index` tells them apart.
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
        var arguments: String?
    }

    private struct Call {
        var index: Int
        var id = ""
        var name = ""
        var arguments = ""
    }

    private var calls: [Call] = []
    /// Positions in `calls`, by the upstream's index.
    private var positions: [Int: Int] = [:]
    private var bytes = 0

    var isEmpty: Bool { calls.isEmpty }

    /// Adds a fragment to its call.
    /// - Throws: `output_too_large` or `upstream_protocol` if the calls exceed a limit.
    mutating func add(_ fragment: Fragment) throws(Failure) {
        let position = try position(of: fragment)
        bytes += (fragment.id?.utf8.count ?? 0) + (fragment.name?.utf8.count ?? 0) + (fragment.arguments?.utf8.count ?? 0)
        guard bytes <= Self.maximumBytes else {
            throw Failure(.outputTooLarge, "the upstream's tool calls exceed \(Self.maximumBytes) bytes")
        }
        // The id comes once. Later fragments omit it, leave it empty or repeat it.
        if let id = fragment.id, !id.isEmpty { calls[position].id = try Self.bounded(id, "id", to: Self.maximumIDBytes) }
        if let name = fragment.name, !name.isEmpty, name != calls[position].name {
            calls[position].name = try Self.bounded(calls[position].name + name, "name", to: Self.maximumNameBytes)
        }
        if let arguments = fragment.arguments { calls[position].arguments += arguments }
    }

    /// Finds or starts the call of a fragment. Some servers omit the index: then a new id starts a new call, and any other fragment
    /// continues the last call.
    private mutating func position(of fragment: Fragment) throws(Failure) -> Int {
        if let index = fragment.index, let position = positions[index] { return position }
        if fragment.index == nil, let last = calls.indices.last {
            guard let id = fragment.id, !id.isEmpty, id != calls[last].id else { return last }
        }
        guard calls.count < Self.maximumCalls else {
            throw Failure(.outputTooLarge, "the upstream sent more than \(Self.maximumCalls) tool calls")
        }
        let index = fragment.index ?? calls.count
        calls.append(Call(index: index))
        // If two calls have the same index, the first one keeps it: a call without an index may have taken the number of a later one.
        if positions[index] == nil { positions[index] = calls.count - 1 }
        return calls.count - 1
    }

    /// Returns all calls in order of their index and resets the assembler. Missing arguments become `{}`, missing ids are generated.
    /// - Throws: `upstream_protocol` for arguments that are not JSON and for a call without a name.
    mutating func finish() throws(Failure) -> [ToolCall] {
        var finished: [ToolCall] = []
        for call in calls.sorted(by: { $0.index < $1.index }) {
            var arguments = call.arguments
            if arguments.utf8.allSatisfy({ $0 <= 0x20 }) { arguments = "{}" }
            guard Self.isJSON(&arguments) else {
                throw Failure(
                    .upstreamProtocol,
                    "the arguments of the upstream's tool call \"\(call.name.cut(toBytes: 100))\" are not JSON")
            }
            guard !call.name.isEmpty else { throw Failure(.upstreamProtocol, "the upstream sent a tool call without a name") }
            finished.append(
                ToolCall(index: call.index, callID: call.id.isEmpty ? "call_\(call.index)" : call.id, name: call.name, arguments: arguments)
            )
        }
        calls = []
        positions = [:]
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
            try scanner.skip()
            try scanner.finish()
            return true
        } catch { return false }
    }
}
