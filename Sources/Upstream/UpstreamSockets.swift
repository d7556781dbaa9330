import CCurl
import Glibc
import Metrics

/// Makes and closes libcurl's sockets and counts them: being connected, in use, and kept for the next request. On the loop only.
final class UpstreamSockets {
    private(set) var open = 0
    private let gauge = Gauge(label: "sluice_upstream_connections_open")

    init() { gauge.record(0) }

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
        if let context { Unmanaged<UpstreamSockets>.fromOpaque(context).takeUnretainedValue().changed(by: -1) }
        return close(socket)
    }

    private func changed(by count: Int) {
        open += count
        gauge.record(open)
    }
}
