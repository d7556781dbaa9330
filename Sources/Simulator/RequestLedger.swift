import Contract
import DequeModule
import JSONCodec
import Support
import Synchronization

/// The result of a request, from the provider's point of view.
enum RequestEnd: String, Sendable, CaseIterable {
    /// The complete answer was written to the socket (or generated, if the model outlives its client).
    case done
    case clientClosed = "client_closed"
    case dropped
    case error
}

/// The observable state of one request. The event loop that answers it writes the record; any thread may read it. Times are nanoseconds of
/// CLOCK_MONOTONIC; 0 means not yet.
final class RequestRecord: Sendable {
    let number: Int
    let tag: String
    let model: String
    let path: String
    /// W3C Trace Context header; empty if missing.
    let traceparent: String
    let accepted: UInt64
    private let tokens = Atomic<Int>(0)
    private let firstToken = Atomic<UInt64>(0)
    private let clientLeft = Atomic<UInt64>(0)
    private let ended = Atomic<UInt64>(0)
    /// Index of the result in `RequestEnd.allCases`; -1 while running. Stored last, so a reader that sees it also sees the other values.
    private let how = Atomic<Int>(-1)

    init(number: Int, tag: String, model: String, path: String, traceparent: String, accepted: UInt64) {
        self.number = number
        self.tag = tag
        self.model = model
        self.path = path
        self.traceparent = traceparent
        self.accepted = accepted
    }

    /// Records the progress of the answer.
    /// - Parameter total: Tokens written to the socket so far.
    func wrote(total: Int, at now: UInt64) {
        if firstToken.load(ordering: .relaxed) == 0 { firstToken.store(now, ordering: .relaxed) }
        tokens.store(total, ordering: .relaxed)
    }

    /// Records that the client disconnected.
    func clientLeft(at now: UInt64) { clientLeft.store(now, ordering: .relaxed) }

    fileprivate func end(_ end: RequestEnd, at now: UInt64) {
        ended.store(now, ordering: .relaxed)
        how.store(RequestEnd.allCases.firstIndex(of: end) ?? 0, ordering: .releasing)
    }

    var isRunning: Bool { how.load(ordering: .acquiring) < 0 }

    /// Appends the record as a JSON object.
    func append(to out: inout [UInt8]) {
        let how = how.load(ordering: .acquiring)
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("number", number)
        out.appendJSONMember("tag", tag)
        out.appendJSONMember("model", model)
        out.appendJSONMember("path", path)
        out.appendJSONMember("traceparent", traceparent)
        out.appendJSONMember("tokens", tokens.load(ordering: .relaxed))
        out.appendJSONName("how")
        if how < 0 { out.append(contentsOf: "null".utf8) } else { out.appendJSONString(RequestEnd.allCases[how].rawValue) }
        out.appendJSONMember("accept_ns", Int(accepted))
        Self.append("first_token_ns", firstToken, to: &out)
        Self.append("client_left_ns", clientLeft, to: &out)
        Self.append("end_ns", ended, to: &out)
        out.append(UInt8(ascii: "}"))
    }

    /// Appends a time as a JSON member; 0 becomes null.
    private static func append(_ name: StaticString, _ time: borrowing Atomic<UInt64>, to out: inout [UInt8]) {
        let value = time.load(ordering: .relaxed)
        out.appendJSONName(name)
        if value == 0 { out.append(contentsOf: "null".utf8) } else { out.appendDecimal(Int(value)) }
    }
}

/// The latest requests to the simulator, with counters for all requests.
final class RequestLedger: Sendable {
    private struct State {
        var records: Deque<RequestRecord> = []
        var total = 0
        var running = 0
        var ends = [Int](repeating: 0, count: RequestEnd.allCases.count)
    }

    private let kept: Int
    private let state = Mutex(State())

    /// - Parameter kept: Number of requests to keep, at least 1. The oldest are dropped first, even if they are running.
    init(kept: Int) { self.kept = max(1, kept) }

    /// Adds a running request.
    func begin(tag: String, model: String, path: String, traceparent: String = "", at now: UInt64) -> RequestRecord {
        state.withLock { state in
            state.total += 1
            state.running += 1
            let record = RequestRecord(number: state.total, tag: tag, model: model, path: path, traceparent: traceparent, accepted: now)
            if state.records.count >= kept { state.records.removeFirst() }
            state.records.append(record)
            return record
        }
    }

    /// Records the result of a request. Does nothing if the request has already ended.
    func end(_ record: RequestRecord, _ end: RequestEnd, at now: UInt64) {
        state.withLock { state in
            guard record.isRunning else { return }
            record.end(end, at: now)
            state.running -= 1
            if let index = RequestEnd.allCases.firstIndex(of: end) { state.ends[index] += 1 }
        }
    }

    /// Removes all records, including those of running requests, which continue. The counters are kept.
    func clear() { state.withLock { $0.records.removeAll() } }

    /// The requests as the JSON body of `GET /sim/requests`.
    /// - Parameters:
    ///   - tag: Include only requests with this tag.
    ///   - since: Include only requests accepted at or after this time (nanoseconds).
    func list(tag: String?, since: UInt64) -> [UInt8] {
        let (records, total, running) = state.withLock { ($0.records, $0.total, $0.running) }
        var out: [UInt8] = []
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("running", running)
        out.appendJSONMember("total", total)
        out.appendJSONName("requests")
        out.append(UInt8(ascii: "["))
        var first = true
        for record in records where (tag == nil || record.tag == tag) && record.accepted >= since {
            if !first { out.append(UInt8(ascii: ",")) }
            first = false
            record.append(to: &out)
        }
        out.append(contentsOf: "]}".utf8)
        return out
    }

    /// The counters as the JSON body of `GET /healthz`.
    var health: [UInt8] {
        let (total, running, ends) = state.withLock { ($0.total, $0.running, $0.ends) }
        var object: JSONObject = JSONObject()
        object["status"] = "ok"
        object["running"] = .integer(running)
        object["total"] = .integer(total)
        for (end, count) in zip(RequestEnd.allCases, ends) { object[end.rawValue] = .integer(count) }
        return JSON.object(object).bytes
    }
}
