import Contract
import JSONCodec
import Testing

struct JobTests {
    /// The contract's example with all fields.
    static let full = #"""
        {"id":"p0-01ARZ3NDEKTSV4RRFFQ69G5FAV","session":"p0-S","owner":"tenant-a","class":"interactive","request":{"model":"qwen-plus",
        "messages":[{"role":"user","content":"hi"}],"tools":[],"temperature":0.70,"seed":9007199254740993},
        "speech":{"model":"qwen3-tts-flash","voice":"Cherry","format":"pcm"},"deadline_ms":1763800000000,"first_token_timeout_ms":15000,
        "idle_timeout_ms":30000,"total_timeout_ms":600000,"on_crash":"restart","traceparent":"00-ab","retry_of":"p0-old"}
        """#

    @Test func `all fields of the contract`() throws {
        let job = try Job(parsing: Self.full.utf8)
        #expect(
            job.id.rawValue == "p0-01ARZ3NDEKTSV4RRFFQ69G5FAV" && job.session == "p0-S" && job.owner == "tenant-a"
                && job.priority == .interactive)
        #expect(job.model == "qwen-plus" && job.speech == Job.Speech(model: "qwen3-tts-flash", voice: "Cherry", format: "pcm"))
        #expect(job.deadlineMilliseconds == 1_763_800_000_000 && job.firstTokenTimeoutMilliseconds == 15_000)
        #expect(job.idleTimeoutMilliseconds == 30_000 && job.totalTimeoutMilliseconds == 600_000)
        #expect(job.onCrash == .restart && job.traceparent == "00-ab" && job.retryOf == "p0-old")
        #expect(job.request["temperature"] == .number("0.70") && job.request["seed"] == .number("9007199254740993"))
    }

    @Test func `jobs are encoded and decoded`() throws {
        let job = try Job(parsing: Self.full.utf8)
        #expect(try Job(parsing: job.json.bytes) == job)
        let small = try Job(parsing: #"{"id":"x","request":{}}"#.utf8)
        #expect(try Job(parsing: small.json.bytes) == small)
        #expect(
            small.priority == .standard && small.onCrash == .continue && small.model == nil && small.owner == nil && small.session == nil)
    }

    @Test(arguments: [
        "session", "owner", "class", "speech", "deadline_ms", "first_token_timeout_ms", "on_crash", "traceparent", "retry_of",
    ])
    func `null is treated as absent`(field: String) throws {
        let job = try Job(parsing: #"{"id":"x","request":{},"\#(field)":null}"#.utf8)
        #expect(try job == Job(parsing: #"{"id":"x","request":{}}"#.utf8))
    }

    /// A field, a value, and whether the error contains the id.
    @Test(arguments: [
        ("id", "7"), ("id", "null"), ("id", "\"\""), ("id", "\"a b\""), ("request", "null"), ("request", "[]"), ("request", "\"x\""),
        ("session", "7"),
        ("owner", "[]"), ("class", "\"urgent\""), ("class", "1"), ("speech", "true"), ("speech", "\"x\""), ("deadline_ms", "\"soon\""),
        ("deadline_ms", "-1"),
        ("deadline_ms", "1e300"), ("first_token_timeout_ms", "[]"), ("idle_timeout_ms", "true"), ("total_timeout_ms", "{}"),
        ("on_crash", "\"shrug\""),
        ("on_crash", "0"), ("traceparent", "0"), ("retry_of", "{}"), ("colour", "\"green\""), ("first_token_timeout", "5"),
        ("gateway", "\"g\""), ("url", "\"http://x\""),
        ("ID", "\"x\""), ("", "1"),
    ])
    func `an invalid or unknown field is named in the error`(field: String, value: String) throws {
        var members = [("id", "\"x\""), ("request", "{}")].filter { $0.0 != field }
        members.append((field, value))
        let text = "{" + members.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",") + "}"
        let error = try #require(throws: JobError.self) { try Job(parsing: text.utf8) }
        #expect(error.reason.contains("\"\(field)\""), "\(error.reason)")
        #expect(error.id?.rawValue == (field == "id" ? nil : "x"))
    }

    @Test(arguments: [("colour", "\"x\""), ("voice", "1"), ("model", "null"), ("format", "[]")])
    func `invalid or unknown fields of speech`(field: String, value: String) throws {
        let text = #"{"id":"x","request":{},"speech":{"\#(field)":\#(value)}}"#
        let error = try #require(throws: JobError.self) { try Job(parsing: text.utf8) }
        #expect(error.reason.contains("speech.\(field)"))
    }

    @Test(arguments: [
        "", "x", "[]", "null", "7", #"{"id":"x"}"#, #"{"request":{}}"#, #"{"id":"x","request":{}"#, #"{"id":"x","request":{"model":7}}"#,
    ])
    func `invalid jobs are rejected`(text: String) { #expect(throws: JobError.self) { try Job(parsing: text.utf8) } }

    @Test(arguments: [
        ("session", 128), ("owner", 128), ("retry_of", 128), ("traceparent", 512), ("class", 64), ("on_crash", 64), ("request.model", 256),
        ("speech.model", 256), ("speech.voice", 256), ("speech.format", 256),
    ])
    func `the length of names is limited`(field: String, maximum: Int) throws {
        func job(_ value: String) throws -> Job {
            let parts = field.split(separator: ".")
            let member = parts.count == 1 ? #""\#(field)":"\#(value)""# : #""\#(parts[0])":{"\#(parts[1])":"\#(value)"}"#
            return try Job(parsing: #"{"id":"x",\#(parts[0] == "request" ? "" : #""request":{},"#)\#(member)}"#.utf8)
        }
        if field != "class" && field != "on_crash" { _ = try job(String(repeating: "x", count: maximum)) }
        let text = String(repeating: "x", count: maximum + 1)
        #expect(try #require(throws: JobError.self) { try job(text) }.reason.utf8.count < 200)
        #expect(throws: JobError.self) { try job("x" + String(repeating: "\u{301}", count: maximum)) }
        #expect(throws: JobError.self) { try Job(parsing: #"{"id":"x","request":{},"retry_of":"a b"}"#.utf8) }
    }

    @Test(arguments: [
        #"{"id":"x","id":"y","request":{}}"#, #"{"id":"x","request":{"model":"dear","model":"cheap"}}"#,
        #"{"id":"x","request":{"messages":[{"role":"user","\u0072ole":"system"}]}}"#,
    ])
    func `a duplicate name is rejected`(text: String) throws {
        #expect(try #require(throws: JobError.self) { try Job(parsing: text.utf8) }.reason.contains("occurs twice"))
    }

    @Test func `an empty or null model is left to the worker`() throws {
        for model in ["\"\"", "null"] {
            #expect(try Job(parsing: #"{"id":"x","request":{"model":\#(model)}}"#.utf8).model == nil)
        }
    }

    @Test func `the nesting depth of a request is limited`() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: JobError.self) { try Job(parsing: #"{"id":"x","request":{"messages":\#(deep)"#.utf8) }
    }
}
