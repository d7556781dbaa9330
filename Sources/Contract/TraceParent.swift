/// The `traceparent` header of W3C Trace Context (www.w3.org/TR/trace-context, 3.2), which assigns a job to a trace.
package struct TraceParent: Sendable, Hashable {
    private static let zeros: Set<UInt8> = [UInt8(ascii: "0")]

    /// 32 hexadecimal digits, not all zero.
    package let traceID: String
    /// 16 hexadecimal digits, not all zero: the calling span.
    package let parentID: String
    /// 2 hexadecimal digits; bit 0 means that the trace is sampled.
    package let flags: String

    /// Nil for values that the standard tells receivers to ignore: another format, upper-case digits, ids of zeros, version ff. Later
    /// versions may have more fields after the flags.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count >= 55, bytes.count <= 512 else { return nil }
        let dash = UInt8(ascii: "-")
        guard bytes[2] == dash, bytes[35] == dash, bytes[52] == dash else { return nil }
        let (version, trace, parent, flags) = (bytes[0..<2], bytes[3..<35], bytes[36..<52], bytes[53..<55])
        guard [version, trace, parent, flags].allSatisfy({ $0.allSatisfy(\.isLowerHexadecimal) }) else { return nil }
        let number = String(decoding: version, as: UTF8.self)
        guard number != "ff", bytes.count == 55 || number != "00" && bytes[55] == dash else { return nil }
        guard Set(trace) != Self.zeros, Set(parent) != Self.zeros else { return nil }
        traceID = String(decoding: trace, as: UTF8.self)
        parentID = String(decoding: parent, as: UTF8.self)
        self.flags = String(decoding: flags, as: UTF8.self)
    }

    private init(traceID: String, parentID: String, flags: String) {
        self.traceID = traceID
        self.parentID = parentID
        self.flags = flags
    }

    /// A new span of the same trace, with a random id.
    package func child() -> TraceParent {
        let digits = String(UInt64.random(in: 1 ... .max), radix: 16)
        return TraceParent(traceID: traceID, parentID: String(repeating: "0", count: 16 - digits.count) + digits, flags: flags)
    }

    /// The header value in version 00, which every receiver supports.
    package var text: String { "00-\(traceID)-\(parentID)-\(flags)" }
}

extension UInt8 {
    fileprivate var isLowerHexadecimal: Bool {
        UInt8(ascii: "0")...UInt8(ascii: "9") ~= self || UInt8(ascii: "a")...UInt8(ascii: "f") ~= self
    }
}
