import Contract
import JSONCodec
import Testing

/// The scanner with valid and invalid texts.
struct JSONScannerTests {
    private static let values: [(String, JSON)] = [
        ("null", JSON.null), ("true", .bool(true)), ("false", .bool(false)), (" \t\r\n0 ", .number("0")), ("\"\"", .string("")),
        ("[]", .array([])),
        ("{}", .object(JSONObject())), ("[ ]", .array([])), ("{ }", .object(JSONObject())),
        ("[null , true]", .array([.null, .bool(true)])),
        ("[[[]]]", .array([.array([.array([])])])), (#"{"a":{"b":[1]}}"#, ["a": ["b": [1]]]), (#"{"":""}"#, ["": ""]),
        (#"{"a" : 1 , "b" : 2}"#, ["a": 1, "b": 2]), ("\"杭州 🐼\"", "杭州 🐼"), (#""\"\\\/\b\f\n\r\t""#, .string("\"\\/\u{8}\u{C}\n\r\t")),
        (#""\u0041\u00e9\u6771""#, "Aé東"), (#""\ud83d\udc3c""#, "🐼"), (#""\u0000""#, .string("\0")), (#"{"\u0061":1}"#, ["a": 1]),
        ("\"\u{7F}\u{2028}\"", .string("\u{7F}\u{2028}")),
    ]

    @Test(arguments: values)
    func `valid JSON`(text: String, value: JSON) throws {
        #expect(try JSON(parsing: text) == value)
    }

    @Test(arguments: [
        "", " ", "nul", "nulll", "True", "TRUE", "tru", "undefined", "NaN", "Infinity", "-", "+1", ".5", "5.", "01", "-01", "00", "1e",
        "1e+", "1E-", "0x10",
        "1_000", "--1", "1.e3", "1 2", "\"", "\"a", "'a'", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\U0041\"", "\"\\", "\"\\\"", "\"\n\"",
        "\"\t\"", "\"\0\"",
        "\"\u{1F}\"", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1;2]", "{", "}", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,",
        "{\"a\":1,}", "{,}", "{a:1}",
        "{1:2}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\"::1}", "[}", "{]", "{}{}", "[]]", "null,", "/* */1", "1//", "\u{FEFF}1",
        "\u{A0}1", "\u{B}1",
    ])
    func `invalid JSON is rejected with its position`(text: String) throws {
        let error = #expect(throws: JSONError.self) { try JSON(parsing: text) }
        let offset = try #require(error).offset
        #expect((0...text.utf8.count).contains(offset))
        // Skipping validates like parsing, except the content of strings.
        guard !text.hasPrefix("\"") else { return }
        #expect(throws: JSONError.self) { try skipWhole(Array(text.utf8)) }
    }

    @Test(arguments: [
        "0", "-0", "10", "-12", "0.5", "1.0", "1e3", "1E+3", "-0.0e-0", "9007199254740993", "0.10", "123456789012345678901234567890",
        "1e400",
    ])
    func `a number keeps its spelling`(text: String) throws {
        #expect(try JSON(parsing: text) == .number(text))
        #expect(try JSON(parsing: text).text == text)
        #expect(try JSON(parsing: "[\(text) , \(text)]").text == "[\(text),\(text)]")
    }

    @Test(arguments: [
        ("7", 7), ("-7", -7), ("1.0", 1), ("1e3", 1_000), ("9223372036854775807", Int.max), ("-9223372036854775808", Int.min), ("-0", 0),
        ("0.5", nil), ("1e400", nil), ("9223372036854775808", nil), ("1e19", nil),
    ])
    func `integers in the range of Int`(text: String, value: Int?) throws {
        #expect(try JSON(parsing: text).integer == value)
        let read = try? scan(text) { (scanner) throws(JSONError) in try scanner.integer() }
        #expect(read == value)
    }

    @Test func `the nesting depth is limited, not the number of siblings`() throws {
        func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
        #expect(try JSON(parsing: nested(8), maximumDepth: 8).array?.count == 1)
        #expect(throws: JSONError.self) { try JSON(parsing: nested(9), maximumDepth: 8) }
        #expect(throws: JSONError.self) { try JSON(parsing: String(repeating: "{\"a\":", count: 1_000_000)) }
        #expect(throws: JSONError.self) { try skipWhole(Array(String(repeating: "[", count: 1_000_000).utf8)) }
        let flat = "[" + Array(repeating: "[[]],{\"a\":[]},{}", count: 100).joined(separator: ",") + "]"
        #expect(try JSON(parsing: flat, maximumDepth: 3).array?.count == 300)
        #expect(throws: JSONError.self) { try JSON(parsing: flat, maximumDepth: 2) }
    }

    @Test(
        arguments: [
            [0xFF], [0xC0, 0xAF], [0xC3], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xF8, 0x88, 0x80, 0x80, 0x80],
            [0x80], [0x41, 0xBF],
        ] as [[UInt8]])
    func `invalid UTF-8 is rejected in values and names`(bytes: [UInt8]) {
        let quote: [UInt8] = [0x22]
        #expect(throws: JSONError.self) { try JSON(parsing: quote + bytes + quote) }
        #expect(throws: JSONError.self) { try JSON(parsing: quote + bytes + Array("\\n".utf8) + quote) }
        #expect(throws: JSONError.self) { try JSON(parsing: Array("{\"".utf8) + bytes + Array("\":1}".utf8)) }
        #expect(throws: JSONError.self) { try JSON(parsing: Array("{\"\\n".utf8) + bytes + Array("\":1}".utf8)) }
    }

    @Test(arguments: [
        (#""\ud83d""#, "\u{FFFD}"), (#""\udc3c""#, "\u{FFFD}"), (#""\udc3c\ud83d""#, "\u{FFFD}\u{FFFD}"), (#""\ud83dx""#, "\u{FFFD}x"),
        (#""\ud83d\n""#, "\u{FFFD}\n"), (#""\ud83d\u0041""#, "\u{FFFD}A"), (#""\ud83d\ud83d\udc3c""#, "\u{FFFD}🐼"),
        (#""a\ud83d\udc3cb""#, "a🐼b"),
    ])
    func `half a surrogate pair becomes a replacement character`(text: String, value: String) throws {
        #expect(try JSON(parsing: text).string == value)
    }

    @Test func `every proper prefix of a text is rejected`() throws {
        let sample = Array(Samples.rich.utf8)
        _ = try JSON(parsing: sample)
        for length in 0..<sample.count {
            let cut = Array(sample[..<length])
            #expect(throws: JSONError.self, "the first \(length) bytes") { try JSON(parsing: cut) }
            #expect(throws: JSONError.self, "the first \(length) bytes") { try skipWhole(cut) }
        }
    }

    @Test func `under the lenient rules the last of two members with a name is used`() throws {
        let json = try JSON(parsing: #"{"b":1,"a":2,"b":3}"#, rules: .lenient)
        #expect(json["b"] == 3)
        #expect(json.object?.names == ["b", "a", "b"])
        #expect(json.text == #"{"b":1,"a":2,"b":3}"#)
    }

    @Test(arguments: [
        (#"{"model":"dear","model":"cheap"}"#, "model"), (#"{"a":{"b":[{"x":1,"y":2,"x":3}]}}"#, "x"), (#"{"a":1,"\u0061":2}"#, "a"),
    ])
    func `a duplicate name is named in the error`(text: String, name: String) throws {
        let error = try #require(throws: JSONError.self) { try JSON(parsing: text) }
        #expect(error.reason == "the name \"\(name)\" occurs twice")
        #expect(try JSON(parsing: text, rules: .lenient).object != nil)
    }

    @Test func `duplicate names are found within one object only`() throws {
        #expect(try JSON(parsing: #"[{"a":1},{"a":2},{"b":{"a":3},"a":4}]"#).array?.count == 3)
        let members = (0..<1_000).map { #""n\#($0)":\#($0)"# }.joined(separator: ",")
        #expect(try JSON(parsing: "{\(members)}")["n999"] == 999)
        for twin in [0, 16, 999] { #expect(throws: JSONError.self) { try JSON(parsing: #"{\#(members),"n\#(twin)":1}"#) } }
    }

    @Test func `the number of members and elements is limited`() throws {
        func list(_ count: Int) -> String { "[" + Array(repeating: "0", count: count).joined(separator: ",") + "]" }
        #expect(try JSON(parsing: list(JSON.maximumValues)).array?.count == JSON.maximumValues)
        #expect(throws: JSONError.self) { try JSON(parsing: list(JSON.maximumValues + 1)) }
        #expect(throws: JSONError.self) { try JSON(parsing: "[" + Array(repeating: "[{},{}]", count: 40_000).joined(separator: ",") + "]") }
        #expect(try JSON(parsing: list(JSON.maximumValues + 1), rules: .lenient).array?.count == JSON.maximumValues + 1)
    }

    /// With a linear search for each name this would take hours.
    @Test(.timeLimit(.minutes(10))) func `the largest object is parsed, searched and built in linear time`() throws {
        let names = (0..<50_000).map { "name\($0)" }
        let text = "{" + names.map { "\"\($0)\":1" }.joined(separator: ",") + "}"
        let parsed = try #require(try JSON(parsing: text).object)
        let lenient = try #require(try JSON(parsing: text, rules: .lenient).object)
        var built = JSONObject()
        var found = 0
        for name in names {
            if parsed[name] == 1, lenient[name] == 1, parsed["no" + name] == nil { found += 1 }
            built[name] = 1
        }
        #expect(found == names.count && built == parsed)
    }

    @Test func `objects with many members are changed like small ones`() {
        var object = JSONObject((0..<40).map { .init(name: "n\($0 % 20)", value: .integer($0)) })
        #expect(object["n3"] == 23 && object["x"] == nil)
        object["n3"] = 7
        object["x"] = 1
        #expect(object["n3"] == 7 && object["x"] == 1 && object.members.count == 41)
        object["n3"] = nil
        #expect(object["n3"] == nil && object["n4"] == 24 && object["x"] == 1 && object.members.count == 39)
        #expect(!object.append(.init(name: "x", value: 2)) && object["x"] == 1)
        #expect(object.append(.init(name: "n3", value: 2)) && object["n3"] == 2)
    }

    @Test func `members are set, replaced and removed`() {
        var object = JSONObject()
        object["a"] = 1
        object["b"] = 2
        object["a"] = 3
        #expect(object.names == ["a", "b"] && object["a"] == 3)
        object["a"] = nil
        #expect(object.names == ["b"] && object["a"] == nil && !object.isEmpty)
    }

    @Test func `the scanner skips values and returns raw bytes`() throws {
        let text = #"{"skip":[1,{"x":"]}"}],"k\u0065y":{"a": [1 ,2]},"n":null,"s":null,"last":5}"#
        var raw = ""
        var last = 0
        var number: Int? = 1
        var string: String? = ""
        try scan(text) { (scanner) throws(JSONError) in
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "key": raw = try scanner.raw()
                case "last": last = try scanner.integer()
                case "n": number = try scanner.optionalInteger()
                case "s": string = try scanner.optionalString()
                default: try scanner.skip()
                }
            }
        }
        #expect(raw == #"{"a": [1 ,2]}"# && last == 5 && number == nil && string == nil)
    }

    @Test(arguments: ["1", "\"a\"", "[]", "{}", "null", "true"])
    func `a value of another type than requested is rejected`(text: String) {
        let kind = text.first
        func fails(_ body: (inout JSONScanner) throws(JSONError) -> Void) -> Bool { (try? scan(text, body)) == nil }
        #expect(fails { (scanner) throws(JSONError) in _ = try scanner.string() } == (kind != "\""))
        #expect(fails { (scanner) throws(JSONError) in _ = try scanner.integer() } == (kind != "1"))
        #expect(fails { (scanner) throws(JSONError) in _ = try scanner.bool() } == (kind != "t"))
        #expect(
            fails { (scanner) throws(JSONError) in try scanner.array { (inner) throws(JSONError) in try inner.skip() } } == (kind != "["))
        #expect(
            fails { (scanner) throws(JSONError) in try scanner.object { (_, inner) throws(JSONError) in try inner.skip() } }
                == (kind != "{"))
        #expect(fails { (scanner) throws(JSONError) in _ = try scanner.optionalString() } == (kind != "\"" && kind != "n"))
    }

    @Test func `errors have a position`() {
        let error = #expect(throws: JSONError.self) { try JSON(parsing: #"{"a": 1, "b": tru}"#) }
        #expect(error?.offset == 14)
        #expect(error?.description.contains("at byte 14") == true)
    }
}

enum Samples {
    static let rich = #"""
        {"id":"p0-01","n":[0,-1.5e+3,9007199254740993],"s":"a\"\\\u6771\ud83d\udc3c é","t":true,"f":false,"z":null,"o":{"":{},"x":[[],[{}]]},
         "chunk":{"choices":[{"delta":{"content":" w1","tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"finish_reason":null}],"usage":null}}
        """#
}

/// Runs a scanner, which must consume the complete text.
func scan<Value>(_ text: String, _ body: (inout JSONScanner) throws(JSONError) -> Value) throws -> Value {
    try scan(Array(text.utf8), body)
}

func scan<Value>(_ bytes: [UInt8], _ body: (inout JSONScanner) throws(JSONError) -> Value) throws -> Value {
    var scanner = JSONScanner(bytes.span)
    let value = try body(&scanner)
    try scanner.finish()
    return value
}

func skipWhole(_ bytes: [UInt8]) throws { try scan(bytes) { (scanner) throws(JSONError) in try scanner.skip() } }
