import Metrics

/// Counter of rejected connections, messages and requests (`sluice_refusals_total`), by place and code.
enum Refusals {
    enum Place: String {
        /// A connection or upgrade request; the code is that of the HTTP error.
        case upgrade
        /// An open WebSocket; the code is that of the close frame.
        case socket
        /// A message answered with an ERROR; the code is its `error_code`.
        case message
        /// An HTTP request; the code is that of the HTTP error.
        case http
    }

    /// Counts one rejection.
    /// - Parameter code: from a fixed set; never text that a client sent.
    static func count(_ place: Place, code: String) {
        Counter(label: "sluice_refusals_total", dimensions: [("place", place.rawValue), ("code", code)]).increment()
    }
}
