import Contract
import Glibc
import NIOCore
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

@Suite(.timeLimit(.minutes(10)))
struct EngineTests {
    @Test func `a complete answer`() async throws {
        let server = try await RawServer(EngineScript.stream)
        let recording = try await Caller.with { try await $0.ask(.at(server.url)) }
        #expect(recording.result == .complete)
        #expect(recording.connected == 1 && recording.chunks == 1)
        #expect(recording.outputs == [.text("Hello"), .usage(promptTokens: 3, completionTokens: 1), .finished(.stop)])
        let request = try #require(server.requests.first)
        #expect(request.head.hasPrefix("POST /v1/chat/completions HTTP/1.1"))
        #expect(request.head.contains("Authorization: Bearer sk-secret-canary"))
        #expect(request.head.contains("x-request-id: p0-test"))
        #expect(!request.head.contains("Expect"))
        #expect(
            request.body
                == #"{"model":"qwen-plus","messages":[{"role":"user","content":"hello"}],"stream":true,"stream_options":{"include_usage":true}}"#
        )
        try await server.stop()
    }

    @Test func `connections are reused`() async throws {
        let server = try await RawServer(EngineScript.stream)
        try await Caller.with { caller in
            for _ in 0..<20 {
                let recording = try await caller.ask(.at(server.url))
                #expect(recording.result == .complete)
            }
            #expect(await caller.openCalls == 0)
            #expect(caller.sockets.open == 1)
        }
        #expect(server.accepted == 1)
        #expect(server.requests.count == 20)
        try await server.stop()
    }

    @Test func `a closed pooled connection is replaced`() async throws {
        let server = try await RawServer { exchange in
            EngineScript.stream(exchange)
            exchange.channel.eventLoop.execute { exchange.close() }
        }
        try await Caller.with { caller in
            for number in 1...3 {
                let recording = try await caller.ask(.at(server.url))
                #expect(recording.result == .complete)
                #expect(recording.connected == 1)
                for await closed in server.closed where closed == number { break }
            }
        }
        #expect(server.accepted == 3)
        try await server.stop()
    }

    // MARK: cancel

    @Test(arguments: [Recorder.Step.connected, .produced]) func `cancel closes the socket at once`(at step: Recorder.Step) async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
        }
        try await Caller.with { caller in
            let recording = try await caller.ask(.at(server.url)) { recorder, now in
                if now == step {
                    recorder.cancel()
                    recorder.cancel()
                }
            }
            #expect(recording.result == nil)
            for await _ in server.closed { break }
            #expect(server.open == 0)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func `the connection is shut down before cancel returns`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
        }
        try await Caller.with { caller in
            let port = server.port
            let recording = try await caller.ask(.at(server.url)) { recorder, step in
                guard step == .produced else { return }
                #expect(establishedConnections(to: port) == 1)
                recorder.call?.cancel()
                #expect(establishedConnections(to: port) == 0)
                recorder.finish()
            }
            #expect(recording.text == "Hello")
        }
        try await server.stop()
    }

    /// The connection is closed at once, the libcurl transfer is removed a little later, and the handles are reused.
    @Test func `cancelled calls are removed`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
        }
        try await Caller.with { caller in
            for _ in 0..<3 {
                for _ in 0..<20 {
                    _ = try await caller.ask(.at(server.url)) { recorder, now in if now == .produced { recorder.cancel() } }
                }
                try await until("the cancelled calls to be removed") { await caller.heldTransfers == 0 }
                #expect(caller.sockets.open == 0)
            }
        }
        #expect(server.accepted == 60)
        try await until("the connections to be gone") { server.open == 0 }
        try await server.stop()
    }

    /// libcurl may still report events of a cancelled call; its handle is not reused before the call is removed.
    @Test func `a call cancelled with unread data leaves a usable handle`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            for _ in 0..<5 { exchange.chunk(EngineScript.token) }
            guard !exchange.head.contains("p0-cancelled") else { return }
            exchange.chunk(EngineScript.finish + EngineScript.done)
            exchange.endStream()
        }
        var cancelled = GenerationRequest.hello
        cancelled.jobID = try #require(JobID("p0-cancelled"))
        try await Caller.with { [cancelled] caller in
            for _ in 0..<20 {
                let recorder = Recorder { recorder, step in if step == .connected { recorder.call?.pauseReading() } }
                try await caller.begin(.at(server.url), recorder, cancelled)
                while await !caller.isConnected(recorder) { await Task.yield() }
                await caller.run { _ in
                    recorder.call?.resumeReading()
                    recorder.cancel()
                }
            }
            try await withThrowingTaskGroup(of: Recording.self) { group in
                for _ in 0..<100 { group.addTask { try await caller.ask(.at(server.url)) } }
                for try await recording in group { #expect(recording.result == .complete) }
            }
            #expect(await caller.heldTransfers == 0)
        }
        try await server.stop()
    }

    @Test func `a call cancelled before its start opens no connection`() async throws {
        let server = try await RawServer(EngineScript.stream)
        try await Caller.with { caller in
            try await caller.run { caller in
                let recorder = Recorder()
                try caller.begin(.at(server.url), recorder)
                recorder.call?.cancel()
            }
            let recording = try await caller.ask(.at(server.url))
            #expect(recording.result == .complete)
        }
        #expect(server.requests.count == 1)
        #expect(server.accepted == 1)
        try await server.stop()
    }

    @Test func `a callback may cancel another call`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
            if exchange.head.contains("p0-second") {
                exchange.chunk(EngineScript.finish + EngineScript.done)
                exchange.endStream()
            }
        }
        try await Caller.with { caller in
            var second = GenerationRequest.hello
            second.jobID = JobID("p0-second")!
            let request = second
            let first = Recorder()
            try await caller.run { try $0.begin(.at(server.url), first) }
            let recording = try await caller.ask(.at(server.url), request) { _, step in
                if step == .produced { first.call?.cancel() }
            }
            #expect(recording.result == .complete)
            for await _ in server.closed { break }
            #expect(await caller.run { _ in first.recording.result } == nil)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func `a call may be started in the completion of another`() async throws {
        let server = try await RawServer(EngineScript.stream)
        try await Caller.with { caller in
            let next = Recorder()
            let url = server.url
            _ = try await caller.ask(.at(url)) { _, step in
                guard step == .ended else { return }
                caller.assumeIsolated { caller in
                    do { try caller.begin(.at(url), next) } catch { Issue.record(error) }
                }
            }
            let recording = await caller.end(of: next)
            #expect(recording.result == .complete)
        }
        #expect(server.accepted == 1, "the second call reuses the connection of the first")
        try await server.stop()
    }

    @Test func `a connection attempt without an answer can be cancelled`() async throws {
        let hole = try BlackHole()
        try await Caller.with { caller in
            try await caller.run { caller in
                let recorder = Recorder()
                try caller.begin(.at("http://127.0.0.1:\(hole.port)"), recorder)
                _ = caller.loop.schedule(after: .milliseconds(20)) { recorder.call?.cancel() }
            }
            while await caller.openCalls > 0 { await Task.yield() }
        }
    }

    @Test func `a connection attempt without an answer ends at its timeout`() async throws {
        let hole = try BlackHole()
        var settings = TransportSettings()
        settings.connectTimeout = .milliseconds(80)
        let recording = try await Caller.with(settings: settings) { try await $0.ask(.at("http://127.0.0.1:\(hole.port)")) }
        #expect(recording.failure?.failure.code == .upstreamUnreachable)
        #expect(recording.connected == 0)
    }

    @Test func `closing the client closes all connections`() async throws {
        let server = try await RawServer { $0.beginStream() }
        try await Caller.with { caller in
            try await caller.run { caller in
                for _ in 0..<5 { try caller.begin(.at(server.url), Recorder()) }
            }
            while server.requests.count < 5 { await Task.yield() }
            await caller.run { $0.client.close() }
            var closed = 0
            for await _ in server.closed {
                closed += 1
                if closed == 5 { break }
            }
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    // MARK: load
    @Test func `a thousand concurrent calls`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            for _ in 0..<5 { exchange.chunk(EngineScript.token) }
            exchange.chunk(EngineScript.finish + EngineScript.done)
            exchange.endStream()
        }
        try await Caller.with { caller in
            try await withThrowingTaskGroup(of: Recording.self) { group in
                for _ in 0..<1000 { group.addTask { try await caller.ask(.at(server.url)) } }
                for try await recording in group {
                    #expect(recording.result == .complete)
                    #expect(recording.text == String(repeating: "Hello", count: 5))
                }
            }
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func `a paused call is not read`() async throws {
        let total = 32 << 20
        let server = try await RawServer { exchange in
            exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EngineScript.token)
            let comment = ByteBuffer(bytes: [UInt8](repeating: UInt8(ascii: ":"), count: 1 << 16).dropLast() + [0x0A])
            for _ in 0..<total >> 16 { exchange.channel.writeAndFlush(comment, promise: nil) }
            exchange.channel.writeAndFlush(ByteBuffer(string: EngineScript.token + EngineScript.finish + EngineScript.done)).whenComplete {
                _ in exchange.close()
            }
        }
        try await Caller.with { caller in
            let recorder = Recorder { recorder, step in
                if step == .produced, recorder.recording.outputs.count == 1 { recorder.call?.pauseReading() }
            }
            try await caller.run { try $0.begin(.at(server.url), recorder) }
            while await caller.run({ _ in recorder.recording.outputs.isEmpty }) { await Task.yield() }
            // The socket buffers hold a few megabytes of the 32; the rest waits in the server.
            for _ in 0..<50 { await caller.run { _ in } }
            #expect(await caller.run { _ in recorder.recording.outputs } == [.text("Hello")])
            #expect(server.open == 1)
            await caller.run { _ in recorder.call?.resumeReading() }
            #expect(await caller.end(of: recorder).result == .complete)
        }
        try await server.stop()
    }
}

/// The number of established connections of this process to a port.
private func establishedConnections(to port: Int) -> Int {
    (0..<4096).count { descriptor in
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isConnected = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe getpeername(Int32(descriptor), $0, &length) == 0 }
        }
        guard isConnected, Int(UInt16(bigEndian: address.sin_port)) == port else { return false }
        // `tcp_info` begins with the state; 1 is TCP_ESTABLISHED.
        var state: UInt8 = 0
        var size = socklen_t(1)
        return unsafe getsockopt(Int32(descriptor), Int32(IPPROTO_TCP), TCP_INFO, &state, &size) == 0 && state == 1
    }
}

/// A port that accepts no connections: its queue is full.
private final class BlackHole: Sendable {
    private let descriptors: [Int32]
    let port: Int

    init() throws {
        var descriptors: [Int32] = []
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        descriptors.append(listener)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                unsafe bind(listener, pointer, length) == 0 && listen(listener, 0) == 0 && getsockname(listener, pointer, &length) == 0
            }
        }
        try #require(bound)
        port = Int(UInt16(bigEndian: address.sin_port))
        for _ in 0..<4 {
            let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            descriptors.append(filler)
            unsafe withUnsafePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = unsafe connect(filler, $0, length) }
            }
        }
        self.descriptors = descriptors
    }

    deinit { for descriptor in descriptors { close(descriptor) } }
}
