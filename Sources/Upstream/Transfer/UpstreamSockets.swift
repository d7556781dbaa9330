import CCurl
import Contract
import Glibc
import Metrics
import Synchronization

/// libcurl's sockets: makes, closes and counts them, and knows which of them is at work for which job, so that an interrupt can cut a job's
/// connection from the thread that hears of it, without waiting for the loop.
///
/// Safe against a socket's number being given to another: a socket is shut down under the same lock under which it is taken off the list
/// before it is closed or goes over to another job.
package final class UpstreamSockets: Sendable {
    private struct State {
        /// Being connected, in use, and kept for the next request.
        var open = 0
        var sockets: [JobID: Int32] = [:]
        var owners: [Int32: JobID] = [:]
        /// Jobs whose call has not yet ended on the loop. At most as many as there are calls.
        var cut: Set<JobID> = []
    }

    private let state = Mutex(State())
    /// `cut.count`, so that asking costs nothing as long as there is none.
    private let cuts = Atomic<Int>(0)
    private let gauge = Gauge(label: "sluice_upstream_connections_open")

    package init() { gauge.record(0) }

    var open: Int { state.withLock { $0.open } }

    // MARK: any thread

    /// Shuts a job's connection down: its upstream is told at once, and what it still sends is refused. Who cuts it tells the job's owner
    /// on the loop as well; until then the call says nothing of its broken connection.
    /// - Returns: false when the job has no connection at work (or one that is not being read): then that is up to the loop.
    package func cut(_ job: JobID) -> Bool {
        state.withLock { state in
            guard let descriptor = state.sockets.removeValue(forKey: job) else { return false }
            state.owners[descriptor] = nil
            state.cut.insert(job)
            cuts.store(state.cut.count, ordering: .releasing)
            return shutdown(descriptor, Int32(SHUT_RDWR)) == 0
        }
    }

    // MARK: on the loop

    /// The socket is at work for the job, and for no other.
    func assign(_ descriptor: Int32, to job: JobID) {
        state.withLock { state in
            guard state.owners[descriptor] != job else { return }
            Self.unassign(descriptor, &state)
            if let other = state.sockets.updateValue(descriptor, forKey: job) { state.owners[other] = nil }
            state.owners[descriptor] = job
        }
    }

    func unassign(_ descriptor: Int32) { state.withLock { Self.unassign(descriptor, &$0) } }

    private static func unassign(_ descriptor: Int32, _ state: inout State) {
        if let job = state.owners.removeValue(forKey: descriptor) { state.sockets[job] = nil }
    }

    func wasCut(_ job: JobID) -> Bool { cuts.load(ordering: .acquiring) > 0 && state.withLock { $0.cut.contains(job) } }

    /// The job's call has ended.
    func callEnded(_ job: JobID) {
        state.withLock { state in
            if state.cut.remove(job) != nil { cuts.store(state.cut.count, ordering: .releasing) }
            if let descriptor = state.sockets.removeValue(forKey: job) { state.owners[descriptor] = nil }
        }
    }

    // MARK: from libcurl

    /// To be set on every transfer; must outlive all connections made by it.
    func install(on handle: UnsafeMutableRawPointer) -> CURLcode {
        let context = Unmanaged.passUnretained(self).toOpaque()
        let codes = [
            sluice_easy_set_pointer(handle, CURLOPT_OPENSOCKETDATA, context),
            sluice_easy_set_open_socket(handle) { context, _, address in UpstreamSockets.make(context, address) },
            sluice_easy_set_pointer(handle, CURLOPT_CLOSESOCKETDATA, context),
            sluice_easy_set_close_socket(handle) { context, socket in UpstreamSockets.end(context, socket) },
        ]
        return codes.first { $0 != CURLE_OK } ?? CURLE_OK
    }

    private static func make(_ context: UnsafeMutableRawPointer?, _ address: UnsafeMutablePointer<curl_sockaddr>?) -> curl_socket_t {
        guard let context, let address = address?.pointee else { return CURL_SOCKET_BAD }
        let made = socket(address.family, address.socktype | Int32(SOCK_CLOEXEC.rawValue), address.protocol)
        guard made >= 0 else { return CURL_SOCKET_BAD }
        Unmanaged<UpstreamSockets>.fromOpaque(context).takeUnretainedValue().changed(by: 1)
        return made
    }

    private static func end(_ context: UnsafeMutableRawPointer?, _ socket: curl_socket_t) -> Int32 {
        if let context {
            let sockets = Unmanaged<UpstreamSockets>.fromOpaque(context).takeUnretainedValue()
            sockets.unassign(socket)
            sockets.changed(by: -1)
        }
        return close(socket)
    }

    private func changed(by count: Int) {
        let open = state.withLock { state in
            state.open += count
            return state.open
        }
        gauge.record(open)
    }
}
