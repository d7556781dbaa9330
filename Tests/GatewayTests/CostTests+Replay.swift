import Contract
import JSONCodec
import NIOCore
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// Logs are read as fast as the client reads.
extension CostTests {
    @Test(arguments: [true, false]) func `a replay is read page by page, as fast as the client reads`(hasEnded: Bool) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.bytesPerSecond = 0 }
            let (client, other) = (try await lab.client(gateway), try await lab.client(gateway, key: "tenant-b-test-key"))
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"))
            // 8 MB, three pieces a page.
            let piece = String(repeating: "x", count: 10_000)
            let (rounds, pages) = (80, 266)
            let size = rounds * 10 * piece.utf8.count
            for _ in 0..<rounds {
                try await job.write(
                    .text(piece), .text(piece), .text(piece), .text(piece), .text(piece), .text(piece), .text(piece), .text(piece),
                    .text(piece), .text(piece))
            }
            if hasEnded {
                try await job.end(.finished(.stop, usage))
                try await request.ended()
            }
            let session = client.state.value.session
            await client.close()
            let back = try await lab.client(gateway, receiveBuffer: 16_384, [("resume_session_id", .string(session))])
            back.state.update { state in
                state.requests[request.id] = RequestChecker(id: request.id, model: nil)
                state.requests[request.id]?.resume()
            }
            let before = try await Self.scriptCalls()
            try await back.stopReading()
            try await back.send("RESUME", ["request_id": .string(request.id)])
            try await until("the first page") { try await Self.scriptCalls() > before }
            for _ in 0..<300 { try await Self.settle(other) }
            let read = try await Self.scriptCalls() - before
            #expect(read < pages / 2, "\(read) pages of \(pages) for a client that does not read")
            try await back.goOnReading()
            if !hasEnded { try await job.end(.finished(.stop, usage)) }
            let end = try await back.state.wait({ _ in "its end" }) { $0.requests[request.id]?.end }
            #expect(end == .finished && back.state.value.requests[request.id]?.text.utf8.count == size)
            #expect(back.isOpen && back.problems.isEmpty, "\(back.problems)")
            let all = try await Self.scriptCalls() - before
            #expect(all >= pages, "\(all) pages, \(read) before reading")
            await back.close()
            await other.close()
        }
    }

    /// The messages of a subscription may be lost while much is generated. What is read from the log then has the client's pace, too.
    @Test func `missed output is read page by page, as fast as the client reads`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.bytesPerSecond = 0 }
            let client = try await lab.client(gateway, receiveBuffer: 65_536)
            let other = try await lab.client(gateway, key: "tenant-b-test-key")
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"))
            // 8 MB in events of 32 KB, in the log only.
            let piece = String(repeating: "x", count: 32_768)
            let (first, events) = (2, 256)
            for number in 0..<events {
                let event = LoggedEvent(id: EventID(attempt: 1, sequence: first + number), event: .text(piece))
                _ = try await PrivateRedis.current.command(
                    "XADD", lab.queue.keys.log(job.job.id), event.id.description, "e", String(decoding: event.json, as: UTF8.self))
            }
            try await client.stopReading()
            let before = try await Self.scriptCalls()
            let next = LoggedEvent(id: EventID(attempt: 1, sequence: first + events), event: .text("end"))
            let json = String(decoding: next.json, as: UTF8.self)
            _ = try await PrivateRedis.current.command("XADD", lab.queue.keys.log(job.job.id), next.id.description, "e", json)
            _ = try await PrivateRedis.current.command("PUBLISH", lab.queue.keys.out(job.job.id), "[" + json + "]")
            try await until("the first page") { try await Self.scriptCalls() > before }
            for _ in 0..<300 { try await Self.settle(other) }
            let read = try await Self.scriptCalls() - before
            #expect(read < events / 4, "\(read) pages for a client that does not read")
            try await client.goOnReading()
            let text = try await client.state.wait({ _ in "the text" }) { state in
                state.requests[request.id].flatMap { $0.text.hasSuffix("end") ? $0.text : nil }
            }
            #expect(text.utf8.count == events * piece.utf8.count + 3)
            #expect(client.isOpen && client.problems.isEmpty, "\(client.problems)")
            await client.close()
            await other.close()
        }
    }
}
