import Foundation
import Support
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

/// A child process, leader of its own process group, that ends with the process that started it.
///
/// The kernel kills it when its parent ends or crashes (`setpriv --pdeathsig`). That signal is sent at the end of the *thread* that forked,
/// and threads of Swift's or Dispatch's pool may end at any time, so one thread that never ends forks all children.
package final class ChildProcess: Sendable {
    package let processID: pid_t
    private let state = Mutex(State())

    private struct State {
        var status: ExitStatus?
        var waiting: [CheckedContinuation<ExitStatus, Never>] = []
    }

    /// The source of a child's standard input.
    package enum Input: Sendable {
        case null
        case file(String)
        /// The reading end of a pipe, closed in this process after the fork.
        case descriptor(Int32)
    }

    /// - Parameters:
    ///   - executable: a path, or a name to be found in `PATH`.
    ///   - environment: the whole environment; nil: this process's.
    ///   - output, errors: files to append the streams to; nil: `/dev/null`. Both may be the same path.
    ///   - mortal: whether the child ends with this process; false only if it must outlive this process.
    package static func spawn(
        _ executable: String, _ arguments: [String], environment: [String: String]? = nil, input: Input = .null, output: String? = nil,
        errors: String? = nil, folder: String? = nil, mortal: Bool = true
    ) throws(SpawnError) -> ChildProcess {
        let place = folder.map { ["--chdir", $0] } ?? []
        // A parent that ended before the prctl call causes no signal, so the shell checks that the parent still exists.
        let bond = ["setpriv", "--pdeathsig", "KILL", "sh", "-c", #"[ "$PPID" = "$0" ] && exec "$@""#, "\(getpid())"]
        let command = ["env"] + place + (mortal ? bond : []) + [executable] + arguments
        let variables = (environment ?? ProcessInfo.processInfo.environment).map { "\($0.key)=\($0.value)" }
        let result = Spawner.shared.perform { () -> Result<pid_t, SpawnError> in
            var actions = unsafe posix_spawn_file_actions_t()
            unsafe posix_spawn_file_actions_init(&actions)
            defer { unsafe posix_spawn_file_actions_destroy(&actions) }
            switch input {
            case .null: unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
            case .file(let path): unsafe posix_spawn_file_actions_addopen(&actions, 0, path, O_RDONLY, 0)
            case .descriptor(let descriptor): unsafe posix_spawn_file_actions_adddup2(&actions, descriptor, 0)
            }
            unsafe posix_spawn_file_actions_addopen(&actions, 1, output ?? "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0o600)
            unsafe posix_spawn_file_actions_addopen(&actions, 2, errors ?? "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0o600)
            _ = unsafe Spawner.closeFrom?(&actions, 3)
            var attributes = posix_spawnattr_t()
            unsafe posix_spawnattr_init(&attributes)
            defer { unsafe posix_spawnattr_destroy(&attributes) }
            var none = sigset_t()
            unsafe sigemptyset(&none)
            unsafe posix_spawnattr_setsigmask(&attributes, &none)
            var all = sigset_t()
            unsafe sigfillset(&all)
            unsafe posix_spawnattr_setsigdefault(&attributes, &all)
            unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
            var argv: [UnsafeMutablePointer<CChar>?] = unsafe command.map { unsafe strdup($0) } + [nil]
            var envp: [UnsafeMutablePointer<CChar>?] = unsafe variables.map { unsafe strdup($0) } + [nil]
            defer { unsafe (argv + envp).forEach { unsafe free($0) } }
            var processID: pid_t = 0
            let code = unsafe posix_spawnp(&processID, command[0], &actions, &attributes, &argv, &envp)
            guard code == 0 else { return .failure(SpawnError(description: "\(executable): \(SystemCalls.errorText(code))")) }
            return .success(processID)
        }
        if case .descriptor(let descriptor) = input { close(descriptor) }
        return ChildProcess(processID: try result.get())
    }

    private init(processID: pid_t) {
        self.processID = processID
        let thread = Thread { [self] in
            var raw: Int32 = 0
            while unsafe waitpid(processID, &raw, 0) < 0, errno == EINTR {}
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

    /// Nil while the process is running.
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

    /// Waits for the end; nil when the process is still running at the deadline.
    package func wait(deadline: Duration) async -> ExitStatus? {
        let end = ContinuousClock.now + deadline
        while ContinuousClock.now < end {
            if let status { return status }
            try? await Task.sleep(for: .milliseconds(5))
        }
        return status
    }

    /// Sends a signal to the process, without its group. An ended process gets none, since its id may have been reused.
    package func signal(_ number: Int32) {
        state.withLock { state in
            if state.status == nil { kill(processID, number) }
        }
    }

    package func freeze() { signal(SIGSTOP) }
    package func thaw() { signal(SIGCONT) }
    package func terminate() { signal(SIGTERM) }

    /// Sends SIGKILL to the process group, then waits for the end of the process.
    package func destroy() async {
        signal(SIGCONT)
        // A group exists as long as any member, so this also kills processes that an ended leader left behind.
        kill(-processID, SIGKILL)
        _ = await wait()
    }
}

/// The thread that forks all children.
private final class Spawner: Sendable {
    static let shared = Spawner()

    /// `posix_spawn_file_actions_addclosefrom_np` (glibc 2.34), which the `Glibc` module does not export. Without it a child
    /// would inherit open sockets and pipes.
    static let closeFrom: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32)? = {
        guard let symbol = unsafe dlsym(dlopen(nil, RTLD_NOW), "posix_spawn_file_actions_addclosefrom_np") else { return nil }
        return unsafe unsafeBitCast(symbol, to: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32).self)
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

    /// Runs a closure on the thread and blocks until it returns. A fork is short enough to block any thread.
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
