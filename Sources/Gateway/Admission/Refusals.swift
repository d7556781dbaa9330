import Metrics

/// Counts what clients were refused, by where and with which code, as `sluice_refusals_total`.
enum Refusals {
    enum Place: String {
        /// Before a WebSocket was opened; the code is that of the error.
        case upgrade
        /// A socket that was closed; the code is that of the close frame.
        case socket
        /// A message that was answered by an ERROR; the code is its `error_code`.
        case message
        /// An HTTP request; the code is that of the error.
        case http
    }

    static func count(_ place: Place, code: String) {
        Counter(label: "sluice_refusals_total", dimensions: [("place", place.rawValue), ("code", code)]).increment()
    }
}
