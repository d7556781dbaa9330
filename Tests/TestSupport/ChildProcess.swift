import Foundation
import Synchronization

/// How a process ended.
package enum ExitStatus: Sendable, Hashable, CustomStringConvertible {
    case exited(Int32)
    case signalled(Int32)

    package var description: String {
        switch self {
        case .exited(let status): "exit status \(status)"
        case .signalled(let signal): "signal \(signal)"
        }
    }
}

package struct SpawnError: Error, CustomStringConvertible {
    package let description: String
}

/// A process of ours, leader of its own process group, that cannot outlive the one that started it.
///
/// The kernel kills it when its parent dies (`setpriv --pdeathsig`), a crash included. That signal is bound to the *thread* that forked,
/// and a thread of Swift's or Dispatch's pool may end at any time, so all children are forked by one thread that never ends.
package final class ChildProcess: Sendable {
    package let processID: pid_t
    private let state = Mutex(State())

    private struct State {
        var status: ExitStatus?
        var waiting: [CheckedContinuation<ExitStatus, Never>] = []
    }

    /// Where a child's standard input comes from.
    package enum Input: Sendable {
        case null
        case file(String)
        /// The reading end of a pipe; it is closed here once the child has it.
        case descriptor(Int32)
    }

    /// - Parameters:
    ///   - executable: a path, or a name to be looked for in `PATH`.
    ///   - environment: the whole environment; nil: this process's.
    ///   - output, errors: files that the streams are appended to; nil: `/dev/null`. The same path may be given for both.
    ///   - mortal: whether it dies with this process; only what must outlive it by design says false.
    package static func spawn(
        _ executable: String, _ arguments: [String], environment: [String: String]? = nil, input: Input = .null, output: String? = nil,
        errors: String? = nil, folder: String? = nil, mortal: Bool = true
    ) throws(SpawnError) -> ChildProcess {
        let place = folder.map { ["--chdir", $0] } ?? []
        // A parent that died before the kernel was told gives no signal: the shell looks whether it is still there.
        let bond = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", #"[ "$PPID" = "$0" ] && exec "$@""#, "\(getpid())"]
        let command = ["env"] + place + (mortal ? bond : []) + [executable] + arguments
        let variables = (environment ?? ProcessInfo.processInfo.environment).map { "\($0.key)=\($0.value)" }
        let result = Spawner.shared.perform { () -> Result<pid_t, SpawnError> in
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            defer { posix_spawn_file_actions_destroy(&actions) }
            switch input {
            case .null: posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
            case .file(let path): posix_spawn_file_actions_addopen(&actions, 0, path, O_RDONLY, 0)
            case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, 0)
            }
            posix_spawn_file_actions_addopen(&actions, 1, output ?? "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0o600)
            posix_spawn_file_actions_addopen(&actions, 2, errors ?? "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0o600)
            _ = Spawner.closeFrom?(&actions, 3)
            var attributes = posix_spawnattr_t()
            posix_spawnattr_init(&attributes)
            defer { posix_spawnattr_destroy(&attributes) }
            var none = sigset_t()
            sigemptyset(&none)
            posix_spawnattr_setsigmask(&attributes, &none)
            var all = sigset_t()
            sigfillset(&all)
            posix_spawnattr_setsigdefault(&attributes, &all)
            posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
            var argv: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
            var envp: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
            defer { for pointer in argv + envp { free(pointer) } }
            var processID: pid_t = 0
            let code = posix_spawnp(&processID, command[0], &actions, &attributes, &argv, &envp)
            guard code == 0 else { return .failure(SpawnError(description: "\(executable): \(String(cString: strerror(code)))")) }
            return .success(processID)
        }
        if case .descriptor(let descriptor) = input { close(descriptor) }
        return ChildProcess(processID: try result.get())
    }

    private init(processID: pid_t) {
        self.processID = processID
        let thread = Thread { [self] in
            var raw: Int32 = 0
            while waitpid(processID, &raw, 0) < 0, errno == EINTR {}
            let signal = raw & 0x7F
            let status: ExitStatus = signal == 0 ? .exited(raw >> 8 & 0xFF) : .signalled(signal)
            let waiting = state.withLock { state in
                state.status = status
                defer { state.waiting = [] }
                return state.waiting
            }
            for continuation in waiting { continuation.resume(returning: status) }
        }
        thread.stackSize = 128 << 10
        thread.start()
    }

    /// Nil while it runs.
    package var status: ExitStatus? { state.withLock { $0.status } }
    package var isRunning: Bool { status == nil }

    package func wait() async -> ExitStatus {
        await withCheckedContinuation { continuation in
            let status = state.withLock { state -> ExitStatus? in
                if state.status == nil { state.waiting.append(continuation) }
                return state.status
            }
            if let status { continuation.resume(returning: status) }
        }
    }

    /// Nil when it still runs at the deadline.
    package func wait(deadline: Duration) async -> ExitStatus? {
        let end = ContinuousClock.now + deadline
        while ContinuousClock.now < end {
            if let status { return status }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return status
    }

    /// To the process alone. An ended one gets nothing, so that a reused number is never hit.
    package func signal(_ number: Int32) {
        state.withLock { state in
            if state.status == nil { kill(processID, number) }
        }
    }

    package func freeze() { signal(SIGSTOP) }
    package func thaw() { signal(SIGCONT) }
    package func terminate() { signal(SIGTERM) }

    /// SIGKILL to it and to whatever it started, then waits.
    package func destroy() async {
        signal(SIGCONT)
        // The group outlives its leader as long as a member lives, so this reaches what an ended leader left behind.
        kill(-processID, SIGKILL)
        _ = await wait()
    }
}

/// The thread that forks.
private final class Spawner: Sendable {
    static let shared = Spawner()

    /// `posix_spawn_file_actions_addclosefrom_np` (glibc 2.34), which the `Glibc` module does not show: without it a child holds our
    /// sockets and pipes open.
    static let closeFrom: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32)? = {
        guard let symbol = dlsym(dlopen(nil, RTLD_NOW), "posix_spawn_file_actions_addclosefrom_np") else { return nil }
        return unsafeBitCast(symbol, to: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32).self)
    }()

    private let queue = Mutex<[@Sendable () -> Void]>([])
    private let wake = DispatchSemaphore(value: 0)

    private init() {
        let thread = Thread { [self] in
            while true {
                wake.wait()
                queue.withLock { $0.isEmpty ? nil : $0.removeFirst() }?()
            }
        }
        thread.name = "spawner"
        thread.start()
    }

    /// Blocks for the time of a fork, which is short enough for any thread.
    func perform<Value: Sendable>(_ body: @escaping @Sendable () -> Value) -> Value {
        let done = DispatchSemaphore(value: 0)
        let box = Mutex<Value?>(nil)
        queue.withLock { queue in
            queue.append {
                let value = body()
                box.withLock { $0 = value }
                done.signal()
            }
        }
        wake.signal()
        done.wait()
        return box.withLock { $0! }
    }
}
