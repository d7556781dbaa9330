import Contract
import Glibc
import JobQueue
import NIOPosix
import RedisClient
import UnixSignals

/// `sluice top` on a terminal: snapshots and keys go into the machine, its frames onto the screen, its actions to Redis.
struct TopSession: Sendable {
    private enum Event: Sendable {
        case input(TopMachine.Input)
        case resized
        case end
    }

    let deployment: Deployment
    let interval: Duration
    let hasColours: Bool

    func run(first: DeploymentSnapshot) async throws {
        let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup, .sigwinch)
        let (events, source) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(1_000))
        // Closed by its end, whichever way this function is left.
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
                    // Redis may take its time; keys and frames go on.
                    if action != .none { tasks.addTask { await carryOut(action) { source.yield(.input($0)) } } }
                }
                screen.draw(frame(machine))
            }
        }
    }

    private func frame(_ machine: TopMachine) -> [StyledLine] {
        TopFrame(machine: machine, size: TerminalScreen.size, place: "\(deployment.url)").lines
    }

    private func readSnapshots(_ tell: @Sendable (TopMachine.Input) -> Void) async {
        while true {
            do { try await Task.sleep(for: interval) } catch { return }
            tell(await read())
        }
    }

    private func read() async -> TopMachine.Input {
        do { return .snapshot(try await deployment.queue.snapshot()) } catch {
            return .unreachable("Redis does not answer, this is old: \(error.message)")
        }
    }

    private func carryOut(_ action: TopMachine.Action, _ tell: @Sendable (TopMachine.Input) -> Void) async {
        do {
            tell(.told(try await TopOperation.carryOut(action, on: deployment.queue)))
            tell(await read())
        } catch {
            tell(.told("that failed: \(error.message)"))
        }
    }

    /// On a thread of its own, until the terminal is gone.
    private static func readKeys(_ tell: @escaping @Sendable (Event) -> Void) {
        NIOThreadPool.singleton.submit { state in
            guard case .active = state else { return }
            var chunk = [UInt8](repeating: 0, count: 256)
            while true {
                let count = chunk.withUnsafeMutableBytes { Glibc.read(STDIN_FILENO, $0.baseAddress, $0.count) }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return tell(.end) }
                for key in TopKeyDecoder.keys(in: Array(chunk[..<count])) { tell(.input(.key(key))) }
            }
        }
    }
}

/// What a key's action does to the deployment.
enum TopOperation {
    /// - Returns: what was done, for people.
    static func carryOut(_ action: TopMachine.Action, on queue: JobQueue) async throws(RedisError) -> String {
        switch action {
        case .none, .quit: return ""
        case .pause(let priority, let isPaused):
            _ = try await queue.pause(priority, isPaused)
            return "\(priority.rawValue) is \(isPaused ? "paused" : "resumed")"
        case .drain(let name):
            return try await queue.drain(worker: name) ? "\(name) was asked to drain" : "\(name) is gone"
        case .interrupt(let text):
            guard let id = JobID(text) else { return "\(text) is no job's id" }
            let answer = try await queue.interrupt(id, reason: InterruptReason.userStop, owner: nil)
            let state = answer.state?.rawValue ?? "unknown"
            return answer.stored ? "\(id) is being interrupted" : "\(id) is \(state) already"
        }
    }
}
