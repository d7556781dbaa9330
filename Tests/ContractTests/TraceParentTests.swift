import Contract
import Testing

struct TraceParentTests {
    private static let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @Test func `a valid header is parsed`() throws {
        let trace = try #require(TraceParent(Self.good))
        #expect(trace.traceID == "0af7651916cd43dd8448eb211c80319c" && trace.parentID == "b7ad6b7169203331" && trace.flags == "01")
        #expect(trace.text == Self.good)
        let child = trace.child()
        #expect(child.traceID == trace.traceID && child.flags == trace.flags && child.parentID != trace.parentID)
        #expect(TraceParent(child.text) == child)
        // A later version may have further fields; it is passed on as version 00.
        #expect(TraceParent("cc" + Self.good.dropFirst(2) + "-what-else")?.text == Self.good)
    }

    private static let rest = String(good.dropFirst(2))
    private static let bad: [String] = [
        "", "00", "00-abc", "\(good)-", "\(good)-more", "\(good)0", "ff\(rest)", "0g\(rest)", "01\(rest)x", "\r\n\(rest)",
        good.uppercased(), String(good.dropLast()), good.replacing("-", with: "_"), good.replacing("01", with: "é"),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "cc\(rest)-" + String(repeating: "x", count: 600),
    ]

    @Test(arguments: bad) func `an invalid header is ignored`(text: String) { #expect(TraceParent(text) == nil) }
}
