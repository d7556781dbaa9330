import Contract
import HTTPTypes
import Hummingbird
import NIOCore

/// The `text/event-stream` format (HTML Living Standard, 9.2).
enum ServerSentEvents {
    /// Interval of heartbeat comments. Many proxies close a stream that is idle for about a minute.
    static let heartbeat = TimeAmount.seconds(15)
    /// A heartbeat comment, which clients ignore.
    static let comment = ByteBuffer(string: ": heartbeat\n\n")

    static let headers: HTTPFields = [
        .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache, no-store", .accelBuffering: "no",
    ]

    /// Appends a job's event with its id, type and JSON.
    static func append(_ event: LoggedEvent, to out: inout [UInt8]) {
        out.append(contentsOf: "id: \(event.id)\nevent: \(event.event.type)\ndata: ".utf8)
        event.append(to: &out)
        out.append(contentsOf: "\n\n".utf8)
    }

    /// Appends an event that has data only. Encoded JSON contains no line breaks, so one `data` line is enough.
    static func appendData(_ json: [UInt8], to out: inout [UInt8]) {
        out.append(contentsOf: "data: ".utf8)
        out.append(contentsOf: json)
        out.append(contentsOf: "\n\n".utf8)
    }
}
