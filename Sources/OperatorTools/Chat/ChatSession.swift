import CNIOLinux
import Contract
import Glibc
import JSONCodec
import NIOCore
import NIOPosix
import Observability
import Support
import UnixSignals

/// One conversation in a terminal or between pipes. Carries out the actions of `ChatMachine`.
package struct ChatSession: Sendable {
    /// Delays before the attempts to reconnect. The first connection is attempted only once.
    private static let waits: [Duration] = [.zero, .milliseconds(250), .milliseconds(500), .seconds(1), .seconds(2), .seconds(4)]

    private let address: ChatAddress
    private let key: String?
    private let model: String?
    private let prompt: String?
    private let printsJSON: Bool

    /// - Parameters:
    ///   - key: the API key; nil when the gateway needs none.
    ///   - model: nil for the gateway's default model.
    ///   - prompt: the only prompt; nil to read prompts from the lines of standard input.
    ///   - printsJSON: whether to print the gateway's messages instead of the answers.
    package init(address: ChatAddress, key: String?, model: String?, prompt: String?, printsJSON: Bool) {
        self.address = address
        self.key = key
        self.model = model
        self.prompt = prompt
        self.printsJSON = printsJSON
    }

    /// Returns when the conversation has ended.
    /// - Throws: `CommandFailure` when it ended with an error; status 69 when the gateway is unreachable.
    package func run() async throws {
        // Unbounded buffering is safe: the machine limits waiting lines, and frames are consumed as they arrive.
        let (inputs, continuation) = AsyncStream.makeStream(of: ChatMachine.Input.self)
        let signals = await UnixSignalsSequence(trapping: .sigint)
        let interrupts = Task {
            for await _ in signals { continuation.yield(.interrupt) }
        }
        defer { interrupts.cancel() }
        if prompt == nil {
            LineReader.start { line in continuation.yield(line.map { .line($0) } ?? .endOfInput) }
        }
        var machine = ChatMachine(
            key: key, model: model, prompt: prompt, runID: "\(ULID(milliseconds: UInt64(Timestamp.now.milliseconds)))")
        var view = ChatView(printsJSON: printsJSON)
        var socket = try await firstConnection(continuation)
        var connecting: Task<Void, Never>?
        defer { connecting?.cancel() }
        let sockets = AsyncStream.makeStream(of: ChatSocket.self)
        var newSockets = sockets.stream.makeAsyncIterator()
        continuation.yield(.connected)
        for await input in inputs {
            if case .connected = input, connecting != nil {
                connecting = nil
                if let next = await newSockets.next() { socket = next }
            }
            if case .message(let message) = input { view.received(message) }
            for action in machine.handle(input, now: MonotonicClock.nanoseconds, milliseconds: Timestamp.now.milliseconds) {
                switch action {
                case .send(let message): socket.send(message)
                case .connect:
                    view.note("connection lost, reconnecting …")
                    connecting = Task { await reconnect(continuation, sockets.continuation) }
                case .leave(let status, let message):
                    view.end()
                    await socket.close()
                    guard status == .done else { throw CommandFailure(status, message) }
                    return
                default: view.show(action)
                }
            }
        }
    }

    /// Opens a socket whose events go to the stream of inputs.
    private func connect(_ continuation: AsyncStream<ChatMachine.Input>.Continuation) async throws -> ChatSocket {
        try await ChatSocket.connect(to: address) { event in
            switch event {
            case .message(let message): continuation.yield(.message(message))
            case .closed(let code, let reason): continuation.yield(.closed(code: code, reason: reason))
            }
        }
    }

    private func firstConnection(_ continuation: AsyncStream<ChatMachine.Input>.Continuation) async throws -> ChatSocket {
        do { return try await connect(continuation) } catch {
            throw CommandFailure(.unavailable, unreachable(error))
        }
    }

    /// Reconnects with growing delays; reports `unreachable` when all attempts failed.
    private func reconnect(
        _ continuation: AsyncStream<ChatMachine.Input>.Continuation, _ sockets: AsyncStream<ChatSocket>.Continuation
    ) async {
        var last: (any Error)?
        for wait in Self.waits {
            do {
                try await Task.sleep(for: wait)
                sockets.yield(try await connect(continuation))
                continuation.yield(.connected)
                return
            } catch is CancellationError {
                return
            } catch {
                last = error
            }
        }
        continuation.yield(.unreachable(unreachable(last ?? ChatSocket.Refused())))
    }

    private func unreachable(_ error: any Error) -> String {
        "sluice: no gateway answers at \(address): \(ConnectFailure.reason(of: error)) (start one with sluice dev, or set its address with --url or SLUICE_LISTEN)"
    }
}

/// The system's description of a failed connection.
private enum ConnectFailure {
    static func reason(of error: any Error) -> String {
        guard let failure = error as? NIOConnectionError else {
            return (error as? IOError).map { text(of: $0) } ?? "\(error)"
        }
        if let error = failure.connectionErrors.last?.error { return reason(of: error) }
        return "the host name \(failure.host) is unknown"
    }

    private static func text(of error: IOError) -> String { SystemCalls.errorText(error.errnoCode) }
}

/// The output of a conversation: the answer on standard output, notes on standard error.
private struct ChatView {
    private let terminal = Terminal()
    private let printsJSON: Bool
    /// Whether the last output did not end with a newline.
    private var isInLine = false
    private var showsPrompt = false

    init(printsJSON: Bool) { self.printsJSON = printsJSON }

    mutating func received(_ message: JSON) {
        if printsJSON { StandardOutput.writeLine(message) }
    }

    /// Prints the output of an action.
    mutating func show(_ action: ChatMachine.Action) {
        switch action {
        case .answer(let text):
            guard !printsJSON else { return }
            StandardOutput.write(Terminal.printable(text, keepingLines: true))
            isInLine = !text.hasSuffix("\n")
        case .endOfAnswer: newLine()
        case .note(let text): note(text)
        case .receipt(let receipt):
            if printsJSON { StandardOutput.writeLine(receipt.json) } else { note(receipt.text) }
        case .prompt:
            guard terminal.isInteractive, !printsJSON else { return }
            newLine()
            StandardOutput.write(terminal.bold("you › "))
            showsPrompt = true
        case .send, .connect, .leave: break
        }
        if case .prompt = action { return }
        showsPrompt = false
    }

    /// Prints a note on a line of its own.
    mutating func note(_ text: String) {
        if showsPrompt { StandardError.write("\n") }
        showsPrompt = false
        newLine()
        StandardError.write(terminal.dim("[\(Terminal.printable(text))]") + "\n")
    }

    mutating func end() {
        if showsPrompt { StandardOutput.write("\n") }
        newLine()
    }

    private mutating func newLine() {
        guard isInLine else { return }
        isInLine = false
        StandardOutput.write("\n")
    }
}
