import Foundation

/// Generates HTTP requests for every route of a gateway, most of them almost valid. Reproducible by the seed.
package struct HTTPGrammar: Sendable {
    /// Valid keys of the gateway, including an operator's.
    package let keys: [String]
    private var random: SplitMix64

    package init(keys: [String], seed: UInt64) {
        self.keys = keys
        random = SplitMix64(seed: seed)
    }

    private static let numbers = [
        "0", "-0", "-1", "1", "2", "16", "65536", "2147483648", "4294967296", "9007199254740991", "9007199254740992", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "18446744073709551616", "1e308", "1e400", "0x10", "+5", " 7", "7 ", "5,5", "inf",
        "nan", "",
    ]
    private static let ids = [
        "p0-01M81Y40A87BA2AD2XQ657X3M2", "p9223372036854775807-x", "p-1-x", "p99999999999999999999-a", "a%2fb", "%00", "%ff%zz", "..",
        "%2e%2e",
        "", "a:b.c_d-e", String(repeating: "x", count: 128), String(repeating: "x", count: 129), "%F0%9F%98%80",
    ]
    private static let routes = [
        "/", "/healthz", "/readyz", "/metrics", "/dashboard", "/dashboard/snapshot", "/dashboard/usage", "/dashboard/jobs/$ID",
        "/dashboard/jobs/$ID/interrupt",
        "/dashboard/workers/$ID/drain", "/dashboard/queues/batch/pause", "/dashboard/queues/batch/resume", "/dashboard/queues/$ID/pause",
        "/v1/models", "/v1/jobs", "/v1/jobs/$ID", "/v1/jobs/$ID/events", "/v1/jobs/$ID/interrupt", "/v1/chat/completions",
        "/ws/agent/stream",
        "/v1", "/v1/", "//v1//jobs", "*", "http://127.0.0.1/healthz", "/v1/jobs/$ID/events/$ID", "/nothing",
    ]
    private static let bodies = [
        #"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        #"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":true},"n":$N}"#,
        #"{"request":{"messages":[]},"class":"batch","deadline_ms":$N,"first_token_timeout_ms":$N,"total_timeout_ms":$N}"#,
        #"{"request":{"model":"m","max_tokens":$N,"temperature":$N},"speech":{"voice":"v","format":"pcm"},"on_crash":"fail"}"#,
        #"{"reason":"USER_STOP"}"#, #"{"id":"p0-x","request":{}}"#, "{}", "[]", "", "null", #"{"a":$N}"#, "{\"a\":\"\u{202E}\\u0000\"}",
    ]

    private mutating func below(_ count: Int) -> Int { Int.random(in: 0..<max(1, count), using: &random) }
    private mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
    package mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }
    private mutating func number() -> String { pick(Self.numbers) }

    /// Several requests for sequential use on one connection.
    package mutating func connection(of count: Int) -> [UInt8] {
        var out: [UInt8] = []
        for _ in 0..<count { out += request() }
        return out
    }

    package mutating func request() -> [UInt8] {
        let route = pick(Self.routes).replacing("$ID", with: pick(Self.ids))
        let target = oneIn(8) ? route + "?a=" + number() + "&%" + number() : route
        let isPost = route.contains("completions") || route.hasSuffix("/jobs") || route.hasSuffix("interrupt") || route.contains("queues")
        let method =
            oneIn(8)
            ? pick(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "G T"]) : isPost ? "POST" : "GET"
        let version = oneIn(12) ? pick(["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.9", "HTTP/9.1", "http/1.1", ""]) : "HTTP/1.1"
        let text = oneIn(3) && method == "GET" ? "" : pick(Self.bodies).replacing("$N", with: number())
        var body = Array(text.utf8)
        if oneIn(4) { mutate(&body) }
        var headers = fields()
        if route == "/ws/agent/stream", !oneIn(4) {
            headers += [
                "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
        }
        var out = Array("\(method) \(target) \(version)\r\n".utf8)
        if oneIn(3) {
            headers.append(
                "Transfer-Encoding: \(oneIn(6) ? pick(["gzip, chunked", "identity", "chunked, chunked", "xchunked"]) : "chunked")")
            body = chunked(body)
        }
        if !headers.contains(where: { $0.hasPrefix("Transfer") }) || oneIn(6) {
            headers.append("Content-Length: \(oneIn(8) ? number() : String(body.count))")
        }
        if oneIn(12), let last = headers.last { headers.append(last) }
        for header in headers.shuffled(using: &random) { out += Array((header + (oneIn(200) ? "\n" : "\r\n")).utf8) }
        out += Array("\r\n".utf8) + body
        if oneIn(5) { mutate(&out) }
        return out
    }

    private mutating func fields() -> [String] {
        var fields: [String] = []
        if !oneIn(20) { fields.append("Host: " + pick(["127.0.0.1", "x", "localhost:80", "[::1]:1", "evil.example", "x:" + number()])) }
        // Wrong keys are rare, because the gateway delays the answers to many of them and reads nothing more from the connection until then.
        switch below(100) {
        case 0..<8: break
        case 8:
            fields.append(
                "Authorization: " + pick(["Bearer wrong", "Bearer", "Basic eDp5", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AA", "bearer  x"]))
        default: fields.append("Authorization: Bearer " + pick(keys))
        }
        let optional = [
            "Last-Event-ID: \(number())-\(number())", "Last-Event-ID: \(number())",
            "Idempotency-Key: " + String(repeating: "k", count: below(300)),
            "Expect: 100-continue", "Connection: " + pick(["close", "keep-alive", "upgrade", "Host, close"]),
            "Upgrade: " + pick(["h2c", "websocket", "TLS/1.0"]),
            "Origin: " + pick(["null", "http://evil.example", "http://127.0.0.1", "://", "http://" + number()]),
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Forwarded-For: " + number(),
            "Range: bytes=0-" + number(),
            "Accept-Encoding: gzip", "X: \u{1}\u{7F}", "X: " + String(repeating: "y", count: below(40) * 600),
            "Content-Type: application/json",
        ]
        for _ in 0..<below(4) { fields.append(pick(optional)) }
        return fields
    }

    private mutating func chunked(_ body: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        var rest = body[...]
        while !rest.isEmpty {
            let part = rest.prefix(1 + below(20))
            rest = rest.dropFirst(part.count)
            let size =
                oneIn(30)
                ? pick(["ffffffffffffffff", "7fffffffffffffff", "-1", "g", "", "00000000000000000001"]) : String(part.count, radix: 16)
            out += Array((size + (oneIn(20) ? ";a=\"b\"" : "") + "\r\n").utf8) + part + Array("\r\n".utf8)
        }
        return out + Array((oneIn(10) ? "0\r\nX: y\r\n\r\n" : "0\r\n\r\n").utf8)
    }

    /// One to four mutations: flipped bits, special bytes, removed parts, repeated parts.
    package mutating func mutate(_ bytes: inout [UInt8]) {
        for _ in 0...below(4) where !bytes.isEmpty {
            let place = below(bytes.count)
            switch below(6) {
            case 0: bytes[place] ^= 1 << UInt8(below(8))
            case 1: bytes[place] = pick(Array("{}[]\",:\\0-9eE.u\r\n\t ;=%/?".utf8))
            case 2: bytes[place] = UInt8(below(256))
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + 1 + below(16)))
            case 4: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 1 + below(64))], at: place)
            default: bytes.replaceSubrange(place..<place, with: Array(number().utf8))
            }
        }
    }
}
