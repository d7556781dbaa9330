import Contract
import Glibc
import JobQueue
import NIOPosix
import Support
import UnixSignals

/// `sluice top` on a terminal. Feeds snapshots and keys to the machine, draws its frames and sends its actions to Redis.
package struct TopSession: Sendable {
    private enum Event: Sendable {
        case input(TopMachine.Input)
        case resized
        case end
    }

    private let connection: QueueConnection
    private let interval: Duration
    private let hasColours: Bool

    /// - Parameter interval: time between snapshots.
    package init(connection: QueueConnection, interval: Duration, hasColours: Bool) {
        self.connection = connection
        self.interval = interval
        self.hasColours = hasColours
    }

    /// Runs until the user quits, a signal arrives or the terminal is closed.
    package func run(first: DeploymentSnapshot) async throws {
        let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup, .sigwinch)
        let (events, source) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(1_000))
        // Its deinit restores the terminal on every exit from this function.
        let screen = try TerminalScreen.open(hasColours: hasColours)
        Self.readKeys { source.yield($0) }
        await withTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                for await signal in signals { source.yield(signal == .sigwinch ? .resized : .end) }
            }
            tasks.addTask { await readSnapshots { source.yield(.input($0)) } }
            defer { tasks.cancelAll() }
            var machine = TopMachine()
            _ = machine.receive(.snapshot(first))
            screen.draw(frame(machine))
            for await event in events {
                switch event {
                case .end: return
                case .resized: break
                case .input(let input):
                    let action = machine.receive(input)
                    if action == .quit { return }
                    // In a task of its own, so that a slow Redis does not block keys and frames.
                    if action != .none { tasks.addTask { await carryOut(action) { source.yield(.input($0)) } } }
                }
                screen.draw(frame(machine))
            }
        }
    }

    private func frame(_ machine: TopMachine) -> [StyledLine] {
        TopFrame(machine: machine, size: TerminalScreen.size, place: connection.address).lines
    }

    /// Reads a snapshot after every interval until cancelled.
    private func readSnapshots(_ send: @Sendable (TopMachine.Input) -> Void) async {
        while true {
            do { try await Task.sleep(for: interval) } catch { return }
            send(await read())
        }
    }

    private func read() async -> TopMachine.Input {
        do { return .snapshot(try await connection.queue.snapshot()) } catch {
            return .unreachable("Redis does not answer, the data is outdated: \(error)")
        }
    }

    private func carryOut(_ action: TopMachine.Action, _ send: @Sendable (TopMachine.Input) -> Void) async {
        do {
            send(.actionEnded(try await TopOperation.carryOut(action, on: connection.queue)))
            send(await read())
        } catch {
            send(.actionEnded("failed: \(error)"))
        }
    }

    /// Reads keys on a thread of its own until the terminal is closed.
    private static func readKeys(_ send: @escaping @Sendable (Event) -> Void) {
        NIOThreadPool.singleton.submit { state in
            guard case .active = state else { return }
            var chunk = [UInt8](repeating: 0, count: 256)
            while true {
                let count = SystemCalls.read(STDIN_FILENO, into: &chunk)
                guard count > 0 else { return send(.end) }
                for key in TopKeyDecoder.keys(in: Array(chunk[..<count])) { send(.input(.key(key))) }
            }
        }
    }
}

/// The actions of `sluice top` on the deployment.
enum TopOperation {
    /// Carries out an action.
    /// - Returns: the outcome, for people.
    /// - Throws: the errors of `JobProducer`.
    static func carryOut(_ action: TopMachine.Action, on queue: JobProducer) async throws -> String {
        switch action {
        case .none, .quit: return ""
        case .pause(let priority, let isPaused):
            _ = try await queue.pause(priority, isPaused)
            return "\(priority.rawValue) is \(isPaused ? "paused" : "resumed")"
        case .drain(let name):
            return try await queue.drain(worker: name) ? "\(name) was asked to drain" : "\(name) is gone"
        case .interrupt(let text):
            guard let id = JobID(text) else { return "\(text) is not a job id" }
            let answer = try await queue.interrupt(id, reason: InterruptReason.userStop, owner: nil)
            let state = answer.state?.rawValue ?? "unknown"
            return answer.stored ? "\(id) is being interrupted" : "\(id) is \(state) already"
        }
    }
}
