import Contract
import NIOConcurrencyHelpers
import NIOCore
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// Shutdown of a job's connection from another thread than the loop's.
@Suite(.timeLimit(.minutes(10)))
struct CutTests {
    private let job = GenerationRequest.hello.jobID

    @Test func `a stream is cut from another thread`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
        }
        try await Caller.with { caller in
            let (begun, begin) = AsyncStream.makeStream(of: Void.self)
            let recorder = Recorder { _, step in if step == .produced { begin.finish() } }
            try await caller.begin(.at(server.url), recorder)
            for await _ in begun {}
            #expect(caller.sockets.cut(job))
            #expect(!caller.sockets.cut(job), "only once")
            for await _ in server.closed { break }
            // The end of the connection is not reported as a failure; the loop receives the interrupt separately.
            #expect(await caller.openCalls == 1)
            #expect(await caller.result(of: recorder) == nil)
            await caller.cancel(recorder)
            try await until("the socket to be closed") { caller.sockets.open == 0 }
            #expect(await caller.openCalls == 0)
            #expect(!caller.sockets.wasCut(job.rawValue))
        }
        try await server.stop()
    }

    @Test func `a request without a response is cut`() async throws {
        let (received, receive) = AsyncStream.makeStream(of: Void.self)
        let server = try await RawServer { _ in receive.finish() }
        try await Caller.with { caller in
            let recorder = Recorder()
            try await caller.begin(.at(server.url), recorder)
            for await _ in received {}
            // The server may have read the request before libcurl has registered the socket.
            try await until("the connection to be known") { caller.sockets.cut(job) }
            for await _ in server.closed { break }
            await caller.cancel(recorder)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func `a pooled connection belongs to no job`() async throws {
        let server = try await RawServer(EngineScript.stream)
        try await Caller.with { caller in
            for _ in 0..<5 {
                let recording = try await caller.ask(.at(server.url))
                #expect(recording.result == .complete)
                #expect(!caller.sockets.cut(job))
            }
            #expect(caller.sockets.open == 1)
        }
        #expect(server.accepted == 1)
        try await server.stop()
    }

    /// Connections are reused by calls while others are cut.
    @Test func `only the job's own connection is cut`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
            exchange.channel.eventLoop.execute {
                exchange.chunk(EngineScript.finish + EngineScript.done)
                exchange.endStream()
            }
        }
        let cut = NIOLockedValueBox(0)
        try await Caller.with { caller in
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for number in 0..<600 {
                    if number >= 20 { try await tasks.next() }
                    tasks.addTask {
                        var request = GenerationRequest.hello
                        request.jobID = JobID("p0-\(number)")!
                        let recorder = Recorder()
                        try await caller.begin(.at(server.url), recorder, request)
                        guard number % 3 == 0, await Self.cut(request.jobID, caller, recorder) else {
                            let recording = await caller.end(of: recorder)
                            #expect(recording.result == .complete && recording.text == "Hello", "\(number)")
                            return
                        }
                        cut.withLockedValue { $0 += 1 }
                        await caller.cancel(recorder)
                        #expect(await caller.result(of: recorder) == nil, "\(number)")
                    }
                }
                try await tasks.waitForAll()
            }
            #expect(cut.withLockedValue { $0 } > 0)
            #expect(await caller.openCalls == 0)
            try await until("what was cut to be cleared away") { await caller.heldTransfers == 0 }
        }
        #expect(server.requests.count <= 600 + 200, "only what was cut may have been asked again")
        try await server.stop()
    }

    /// Retries until the call has ended.
    private static func cut(_ job: JobID, _ caller: Caller, _ recorder: Recorder) async -> Bool {
        while await caller.result(of: recorder) == nil {
            if caller.sockets.cut(job) { return true }
        }
        return false
    }
}
