import CCurl
import Glibc
import Metrics
import Synchronization

/// Opens, closes and counts libcurl's sockets and records which socket serves which job. This lets an interrupt shut a job's connection
/// down from the thread that received it, without waiting for the event loop. A job is any unique text here; `Upstream` passes job ids.
///
/// Safe against reuse of descriptor numbers: the lock under which a socket is shut down is also taken to remove a socket from the registry
/// before it is closed or reassigned.
package final class UpstreamSockets: Sendable {
    private struct State {
        /// Number of open sockets: connecting, in use or idle.
        var open = 0
        /// The socket that each job's response is read from, and the reverse mapping.
        var sockets: [String: Int32] = [:]
        var owners: [Int32: String] = [:]
        /// Jobs whose connection was cut and whose call has not ended on the loop yet. Bounded by the number of calls.
        var cut: Set<String> = []
    }

    private let state = Mutex(State())
    /// `cut.count`, read without the lock, so `wasCut` is free while no job is cut.
    private let cutCount = Atomic<Int>(0)
    private let gauge = Gauge(label: "sluice_upstream_connections_open")

    /// The addresses that may be connected to, checked for each connection after name resolution; nil: all.
    let rule: AddressRule?

    package init() {
        rule = nil
        gauge.record(0)
    }

    /// Sockets for addresses that `rule` allows. They are not counted in `sluice_upstream_connections_open`.
    package init(rule: AddressRule) { self.rule = rule }

    var open: Int { state.withLock { $0.open } }

    // MARK: from any thread

    /// Shuts a job's connection down. The upstream sees the end of the stream at once, and data that it still sends is rejected. The caller
    /// must also cancel the job's call on the loop; until then the call reports neither output nor the broken connection.
    /// - Returns: False if no response is being read for the job or the shutdown failed; the loop must then end the call.
    package func cut(_ job: String) -> Bool {
        state.withLock { state in
            guard let descriptor = state.sockets[job] else { return false }
            // Before the shutdown, so that `wasCut` waits for this lock and the loop does not take the end of the stream for a fault.
            cutCount.store(state.cut.count + 1, ordering: .releasing)
            let isShut = shutdown(descriptor, Int32(SHUT_RDWR)) == 0
            state.cut.insert(job)
            cutCount.store(state.cut.count, ordering: .releasing)
            state.sockets[job] = nil
            state.owners[descriptor] = nil
            return isShut
        }
    }

    // MARK: on the event loop

    /// Assigns a socket to a job. A socket serves one job, and a job has one socket.
    func assign(_ descriptor: Int32, to job: String) {
        state.withLock { state in
            guard state.owners[descriptor] != job else { return }
            Self.unassign(descriptor, &state)
            if let other = state.sockets.updateValue(descriptor, forKey: job) { state.owners[other] = nil }
            state.owners[descriptor] = job
        }
    }

    /// Removes a socket from its job.
    func unassign(_ descriptor: Int32) { state.withLock { Self.unassign(descriptor, &$0) } }

    private static func unassign(_ descriptor: Int32, _ state: inout State) {
        if let job = state.owners.removeValue(forKey: descriptor) { state.sockets[job] = nil }
    }

    /// Whether the job's connection was cut and its call has not ended yet.
    package func wasCut(_ job: String) -> Bool { cutCount.load(ordering: .acquiring) > 0 && state.withLock { $0.cut.contains(job) } }

    /// Removes the job's entries. Called when its call ends.
    package func callEnded(_ job: String) {
        state.withLock { state in
            if state.cut.remove(job) != nil { cutCount.store(state.cut.count, ordering: .releasing) }
            if let descriptor = state.sockets.removeValue(forKey: job) { state.owners[descriptor] = nil }
        }
    }

    // MARK: libcurl callbacks

    /// Creates a close-on-exec socket and counts it.
    /// - Returns: the descriptor; `CURL_SOCKET_BAD` if the system refused.
    func openSocket(family: Int32, type: Int32, protocol number: Int32) -> curl_socket_t {
        let made = socket(family, type | Int32(SOCK_CLOEXEC.rawValue), number)
        guard made >= 0 else { return CURL_SOCKET_BAD }
        changed(by: 1)
        return made
    }

    /// Removes the socket from its job and closes it.
    /// - Returns: 0, or -1 for an error.
    func closeSocket(_ socket: curl_socket_t) -> Int32 {
        unassign(socket)
        changed(by: -1)
        return close(socket)
    }

    /// Updates the number of open sockets and its metric.
    private func changed(by count: Int) {
        let open = state.withLock { state in
            state.open += count
            return state.open
        }
        if rule == nil { gauge.record(open) }
    }
}
